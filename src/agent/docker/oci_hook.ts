/**
 * How a container of Podman is attached: a hook of the OCI runtime, which Podman runs for a container that has volumes, when it has its
 * processes' cgroup and before its program begins (oci-hooks(5), opencontainers/runtime-spec config.md "createRuntime"). Podman's own
 * Mount call names no container, and Podman answers no question about one before it runs.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { z } from 'zod';
import { InroError } from '../../model/error.js';

/** Where Podman looks unless containers.conf says otherwise (hooks_dir), and where administrators put their own. */
const hookFolders = ['/usr/share/containers/oci/hooks.d', '/etc/containers/oci/hooks.d'];

/** What the hook is known by, in the files of those folders. */
export const hookCommand = 'oci-hook';

/** The runtime ends a hook that takes longer, and the container does not begin. */
const timeoutSeconds = 20;

/** The content of the file for Podman. @param argv the program, an absolute path, and its arguments. */
export function hookFile(argv: readonly string[]): object {
  const [path = '', ...args] = argv;
  return {
    version: '1.0.0',
    hook: { path, args: [path, ...args], timeout: timeoutSeconds },
    when: { hasBindMounts: true },
    stages: ['createRuntime'],
  };
}

/** Whether Podman would run it. @param folders where it looks. */
export function isHookInstalled(folders: readonly string[] = hookFolders): boolean {
  return folders
    .filter((folder) => existsSync(folder))
    .flatMap((folder) => readdirSync(folder).map((name) => join(folder, name)))
    .some((path) => path.endsWith('.json') && readFileSync(path, 'utf8').includes(`"${hookCommand}"`));
}

/** The state that the runtime writes to the hook's standard input (runtime.md "State"). */
const state = z.object({ id: z.string().min(1), pid: z.int().positive(), bundle: z.string().min(1) });
const bundleConfig = z.object({
  mounts: z.array(z.object({ source: z.string().default('') })).nullish(),
});

export interface BegunContainer {
  id: string;
  /** Its first process, which has not become its program yet. */
  pid: number;
  /** The services whose folders it mounts, each once. */
  services: readonly string[];
}

/** @param text the state. @throws bad_input */
export function begunContainer(text: string, mountPath: string): BegunContainer {
  const { id, pid, bundle } = parse(state, 'the state of a container', () => text);
  const file = join(bundle, 'config.json');
  const { mounts } = parse(bundleConfig, file, () => readFileSync(file, 'utf8'));
  const services = (mounts ?? []).flatMap(({ source }) => serviceOf(source, mountPath) ?? []);
  return { id, pid, services: [...new Set(services)] };
}

/** Undefined for a path elsewhere, and for a task's own folder: inro gives that itself. */
function serviceOf(source: string, mountPath: string): string | undefined {
  if (!source.startsWith('/')) return undefined;
  const [first = ''] = relative(mountPath, source).split('/');
  return first === '' || first.startsWith('.') ? undefined : first;
}

function parse<T>(shape: z.ZodType<T>, what: string, read: () => string): T {
  try {
    return shape.parse(JSON.parse(read()));
  } catch (cause) {
    const words = cause instanceof z.ZodError ? (cause.issues[0]?.message ?? '') : (cause as Error).message;
    throw new InroError('bad_input', `${what} cannot be read: ${words}`, {
      remedy: `it is for container runtimes to run: see 'inro agent ${hookCommand} --help'`,
      cause,
    });
  }
}
