/** The service that a Swarm is measured with: as words of its command line, and as the Engine's API has it. */
import { socketFile, type Sightings } from './sightings.js';
import { image } from './workload.js';

/** In each container. */
const secretPath = '/run/secrets/key';
const reportFolder = '/report';
/** The manager has no task, as the manager of inro has no agent. */
const constraint = 'node.role==worker';
/** What the container calls itself. */
const hostname = '{{.Node.Hostname}}';
const args = ['web', secretPath, `${reportFolder}/${socketFile}`];

export interface SecretUse {
  id: string;
  name: string;
}

/** Of `docker service create`, from the secret on. */
export function serviceWords({ name }: SecretUse, { folder }: Sightings): string[] {
  const mount = `type=bind,source=${folder},target=${reportFolder}`;
  const options = { secret: `source=${name},target=key`, hostname, mount, constraint };
  return [...Object.entries(options).flatMap(([option, value]) => [`--${option}`, value]), image, ...args];
}

/** The body of POST /services/create. */
export function serviceSpec(secret: SecretUse, { folder }: Sightings): object {
  return {
    Name: 'web',
    TaskTemplate: {
      ContainerSpec: {
        Image: image,
        Args: args,
        Hostname: hostname,
        Mounts: [{ Type: 'bind', Source: folder, Target: reportFolder }],
        Secrets: [secretReference(secret)],
      },
      Placement: { Constraints: [constraint] },
    },
    Mode: { Replicated: { Replicas: 1 } },
  };
}

export function secretReference({ id, name }: SecretUse): object {
  return { SecretID: id, SecretName: name, File: { Name: 'key', UID: '0', GID: '0', Mode: 0o444 } };
}
