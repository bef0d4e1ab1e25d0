/** A host of its own for a test, and secrets that a service has there. */
import type { ExecutionContext } from 'ava';
import { Host } from './host.js';

/** A host with manager, agent and a network of its own, and the service `web` with these secrets. */
export async function hostWith(
  t: ExecutionContext,
  secrets: Readonly<Record<string, string>>,
  references: Readonly<Record<string, string>> = {},
): Promise<Host> {
  const host = await Host.of(t, { ownNetwork: true });
  await host.startCluster();
  if (Object.keys(secrets).length > 0) await publish(host, secrets, references);
  return host;
}

/** Secrets, and a service that has them. @param references more of a secret's reference, such as `mode=0400`. */
export async function publish(
  host: Host,
  secrets: Readonly<Record<string, string>>,
  references: Readonly<Record<string, string>> = {},
  service = 'web',
): Promise<void> {
  await createSecrets(host, secrets);
  const words = Object.keys(secrets).map((name) =>
    name in references ? `source=${name},${references[name]}` : name,
  );
  await host.ask(['service', 'create', '--name', service, ...words.flatMap((word) => ['--secret', word])]);
}

export async function createSecrets(host: Host, secrets: Readonly<Record<string, string>>): Promise<void> {
  for (const [name, stdin] of Object.entries(secrets))
    await host.ask(['secret', 'create', name, '-'], { stdin });
}
