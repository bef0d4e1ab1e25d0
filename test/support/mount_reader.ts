/**
 * A reader of a mount, in a process of its own: a synchronous look from the process that serves the mount
 * would wait for itself. It does what it is told with node:fs, and says how that ended.
 */
import { execFileSync, fork, type ChildProcess } from 'node:child_process';
import * as fs from 'node:fs';
import { constants } from 'node:os';
import { fileURLToPath } from 'node:url';

type FsCalls = {
  [Name in keyof typeof fs]: (typeof fs)[Name] extends (...args: never[]) => unknown ? Name : never;
}[keyof typeof fs];

/** Longest wait for one call; beyond it the mount hangs. */
const replyTimeoutMs = 20_000;

/** What a reader can do beside node:fs. */
const more = {
  execFileSync,

  /** read(2) when the offset is -1, else pread(2): at most `length` bytes. */
  pread(fd: number, length: number, offset: number): Uint8Array {
    const buffer = new Uint8Array(length);
    return buffer.subarray(0, fs.readSync(fd, buffer, 0, length, offset < 0 ? null : offset));
  },

  /** open, read until the end, close: never asks for the size. */
  readWhole(path: string): Uint8Array {
    const fd = fs.openSync(path, 'r');
    try {
      const pieces: Uint8Array[] = [];
      for (;;) {
        const piece = more.pread(fd, 65_536, -1);
        if (piece.length === 0) return Buffer.concat(pieces);
        pieces.push(piece);
      }
    } finally {
      fs.closeSync(fd);
    }
  },

  /** Several files as one set, as programs are told to do it: resolve `..data` once; begin anew if it is gone meanwhile. */
  readSet(directory: string, names: string[]): string[] {
    for (;;) {
      const generation = `${directory}/${fs.readlinkSync(`${directory}/..data`)}`;
      try {
        return names.map((name) => Buffer.from(more.readWhole(`${generation}/${name}`)).toString());
      } catch (error) {
        if (!['ENOENT', 'ESTALE'].includes(errnoName(error))) throw error;
      }
    }
  },

  /** Becomes another user, for good. */
  become(uid: number): void {
    process.setgroups?.([]);
    process.setgid?.(uid);
    process.setuid?.(uid);
  },
};

type Calls = FsCalls | keyof typeof more;

interface Request {
  id: number;
  call: string;
  args: unknown[];
}

interface Reply {
  id: number;
  result?: unknown;
  /** The errno's name, or the message. */
  failure?: string;
}

export class MountReader {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, (reply: Reply) => void>();
  #lastId = 0;

  /** @param options.privateMounts gives it a mount namespace of its own, for bind mounts that end with it. */
  constructor(options: { privateMounts?: boolean } = {}) {
    const through =
      options.privateMounts === true
        ? { execPath: 'unshare', execArgv: ['-m', process.execPath] }
        : { execArgv: [] };
    this.#child = fork(fileURLToPath(import.meta.url), ['reader'], {
      cwd: '/',
      serialization: 'advanced',
      ...through,
    });
    this.#child.on('message', (reply: Reply) => this.#settle(reply));
    this.#child.on('exit', () => {
      for (const id of this.#waiting.keys()) this.#settle({ id, failure: 'reader process ended' });
    });
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** The call's result. @throws when it fails. */
  async call<Result = unknown>(name: Calls, ...args: unknown[]): Promise<Result> {
    const reply = await this.#ask(name, args);
    if (reply.failure !== undefined) throw new Error(`${name}(${args.join(', ')}) failed: ${reply.failure}`);
    return reply.result as Result;
  }

  /** The errno's name that the call fails with; `ok` when it does not fail. */
  async fails(name: Calls, ...args: unknown[]): Promise<string> {
    return (await this.#ask(name, args)).failure ?? 'ok';
  }

  /** pread(2) as text; an offset of -1 reads on from where the last read ended. */
  async pread(fd: number, length: number, offset: number): Promise<string> {
    return Buffer.from(await this.call<Uint8Array>('pread', fd, length, offset)).toString();
  }

  async close(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.kill('SIGKILL');
    await ended;
  }

  #ask(call: string, args: unknown[]): Promise<Reply> {
    const id = ++this.#lastId;
    return new Promise((resolve) => {
      const timer = setTimeout(
        () => this.#settle({ id, failure: `no answer in ${replyTimeoutMs} ms` }),
        replyTimeoutMs,
      );
      this.#waiting.set(id, (reply) => {
        clearTimeout(timer);
        resolve(reply);
      });
      this.#child.send({ id, call, args } satisfies Request);
    });
  }

  #settle(reply: Reply): void {
    this.#waiting.get(reply.id)?.(reply);
    this.#waiting.delete(reply.id);
  }
}

function serve(): void {
  const calls = { ...fs, ...more } as unknown as Record<string, (...args: unknown[]) => unknown>;
  process.on('message', ({ id, call, args }: Request) => {
    const reply: Reply = { id };
    try {
      const result = calls[call]?.(...args);
      // A Stats object cannot pass between processes as it is.
      reply.result = result instanceof fs.Stats ? Object.fromEntries(Object.entries(result)) : result;
    } catch (error) {
      reply.failure = errnoName(error);
    }
    process.send?.(reply);
  });
}

/** Node has no `code` for some numbers, ESTALE among them. */
function errnoName(error: unknown): string {
  const { errno = 0, message } = error as NodeJS.ErrnoException;
  const known = Object.entries(constants.errno).find(([, number]) => number === -errno);
  return known?.[0] ?? message;
}

if (process.argv[2] === 'reader' && process.send !== undefined) serve();
