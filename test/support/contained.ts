/**
 * A place for servers that start processes of their own: PID and IPC namespaces of a test's host. Whatever was started
 * there ends with it, and it ends with the host: no worker, no shared memory is left behind.
 */
import type { Host } from './host.js';
import type { Result, RunOptions } from './inro.js';

export class Contained {
  readonly #host: Host;
  readonly #through: readonly string[];

  private constructor(host: Host, holder: number) {
    this.#host = host;
    const namespaces = `/proc/${holder}/ns`;
    this.#through = ['nsenter', `--pid=${namespaces}/pid_for_children`, `--ipc=${namespaces}/ipc`];
  }

  static async on(host: Host): Promise<Contained> {
    const unshare = ['unshare', '--pid', '--ipc', '--fork', '--kill-child'];
    const holder = host.spawn([...unshare, 'sh', '-c', 'echo made; exec sleep infinity']);
    await holder.printed(/made/);
    return new Contained(host, holder.pid);
  }

  /** Runs a line of shell here to its end; what it leaves in the background stays. */
  sh(line: string, options: RunOptions = {}): Promise<Result> {
    return this.#host.sh(line, { ...options, through: [...this.#through, ...(options.through ?? [])] });
  }
}
