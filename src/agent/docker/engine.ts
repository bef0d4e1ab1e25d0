/**
 * The container engine's API (docs.docker.com/reference/api/engine; Podman serves the same) over its unix socket, as much of it as the agent
 * needs. No value of a secret ever goes there.
 */
import { request, type IncomingMessage } from 'node:http';
import { z } from 'zod';
import { InroError } from '../../model/error.js';

export interface ListedContainer {
  id: string;
  name: string;
  /** created, running, paused, restarting, removing, exited, dead; of Podman also stopped. */
  state: string;
  /** Names of the volumes it has of one driver. */
  volumes: readonly string[];
}

export interface EngineEvent {
  /** start, die, destroy, ... */
  action: string;
  containerId: string;
  /** ms since 1970. */
  atMs: number;
}

export interface ContainerState {
  state: string;
  exitCode: number;
  outOfMemory: boolean;
  /** Why it could not be started. */
  error: string;
}

// What is read of its answers; there is more in them. Docker leaves lists out or says null where there is nothing.
const orNone = <T>(one: z.ZodType<T>) =>
  z
    .array(one)
    .nullish()
    .transform((list) => list ?? []);
const wire = {
  containers: z.array(
    z.object({
      Id: z.string().min(1),
      Names: orNone(z.string()),
      State: z.string(),
      Mounts: orNone(
        z.object({ Type: z.string(), Name: z.string().optional(), Driver: z.string().optional() }),
      ),
    }),
  ),
  inspected: z.object({
    State: z.object({
      Status: z.string(),
      ExitCode: z.number().default(0),
      OOMKilled: z.boolean().default(false),
      Error: z.string().default(''),
    }),
  }),
  created: z.object({ Id: z.string().min(1) }),
  event: z.object({
    Action: z.string().default(''),
    Actor: z.object({ ID: z.string().default('') }).optional(),
    timeNano: z.number().default(0),
  }),
};

const maxAnswerBytes = 16 * 1024 * 1024;
const answerMs = 10_000;
/** A container's start waits for its volumes, and its removal for its end. */
const startMs = 120_000;
const maxPullTextChars = 64 * 1024;

interface AskOptions {
  body?: object;
  timeoutMs?: number;
}

interface AnswerLimits {
  ms: number;
  bytes: number;
}

export class Engine {
  readonly #socketPath: string;
  readonly #limits: AnswerLimits;

  /** @param limits of the time and the size of an answer. */
  constructor(socketPath: string, limits: Partial<AnswerLimits> = {}) {
    this.#socketPath = socketPath;
    this.#limits = { ms: answerMs, bytes: maxAnswerBytes, ...limits };
  }

  get address(): string {
    return `unix:${this.#socketPath}`;
  }

  /** Not Docker itself. */
  async isPodman(): Promise<boolean> {
    const signal = AbortSignal.timeout(this.#limits.ms);
    const response = await this.#open('GET', '/_ping', signal);
    await this.#read(response, signal);
    return response.headers['libpod-api-version'] !== undefined;
  }

  /** All containers that name a volume of this driver, whether they run or not. @throws unreachable, protocol. */
  async containersWithVolumes(driver: string): Promise<ListedContainer[]> {
    const found = await this.#get(wire.containers, '/containers/json?all=true');
    return found
      .map(({ Id, Names, State, Mounts }) => ({
        id: Id,
        name: (Names[0] ?? Id.slice(0, 12)).replace(/^\//, ''),
        state: State,
        volumes: Mounts.flatMap(({ Type, Name, Driver }) =>
          Type === 'volume' && Driver === driver && Name !== undefined ? [Name] : [],
        ),
      }))
      .filter(({ volumes }) => volumes.length > 0);
  }

  /** Whether it runs, and how it ended. @throws not_found, unreachable, protocol. */
  async inspect(containerId: string): Promise<ContainerState> {
    const { State } = await this.#get(wire.inspected, `/containers/${containerId}/json`);
    return {
      state: State.Status,
      exitCode: State.ExitCode,
      outOfMemory: State.OOMKilled,
      error: State.Error,
    };
  }

  /** Containers with this label, whether they run or not. */
  async containersLabelled(key: string, value: string): Promise<{ id: string; state: string }[]> {
    const filters = encodeURIComponent(JSON.stringify({ label: [`${key}=${value}`] }));
    const found = await this.#get(wire.containers, `/containers/json?all=true&filters=${filters}`);
    return found.map(({ Id, State }) => ({ id: Id, state: State }));
  }

  async hasImage(image: string): Promise<boolean> {
    try {
      await this.#ask('GET', `/images/${encodeURIComponent(image)}/json`);
      return true;
    } catch (error) {
      if (error instanceof InroError && error.code === 'not_found') return false;
      throw error;
    }
  }

  /** @throws not_found with the registry's words. */
  async pull(image: string, signal: AbortSignal): Promise<void> {
    const tag = /[@:][^/]*$/.test(image) ? '' : '&tag=latest';
    const path = `/images/create?fromImage=${encodeURIComponent(image)}${tag}`;
    const response = await this.#open('POST', path, signal);
    let last = '';
    for await (const chunk of this.#chunks(response, signal))
      last = `${last}${chunk}`.slice(-maxPullTextChars);
    const failure = last.split('\n').flatMap((line) => textIn(line, 'error') ?? [])[0];
    if (failure !== undefined)
      throw new InroError('not_found', `image ${image} cannot be pulled: ${failure}`);
  }

  /** @returns its id. @throws conflict, not_found, bad_input in the engine's words. */
  async create(name: string, spec: object): Promise<string> {
    const path = `/containers/create?name=${encodeURIComponent(name)}`;
    return this.#checked(wire.created, await this.#ask('POST', path, { body: spec })).Id;
  }

  async start(containerId: string): Promise<void> {
    await this.#ask('POST', `/containers/${containerId}/start`, { timeoutMs: startMs });
  }

  /** Resolves when it has ended. @throws unreachable when the engine goes away meanwhile. */
  async wait(containerId: string, signal: AbortSignal): Promise<void> {
    const response = await this.#open('POST', `/containers/${containerId}/wait`, signal);
    for await (const _chunk of this.#chunks(response, signal)) continue;
  }

  /** Its own signal, and SIGKILL after the grace. One that does not run is stopped. */
  async stop(containerId: string, graceMs: number): Promise<void> {
    const seconds = Math.ceil(graceMs / 1000);
    await this.#ask('POST', `/containers/${containerId}/stop?t=${seconds}`, {
      timeoutMs: graceMs + answerMs,
    });
  }

  /** To its first process. @throws conflict when it does not run. */
  async signal(containerId: string, signal: string): Promise<void> {
    await this.#ask('POST', `/containers/${containerId}/kill?signal=${signal}`);
  }

  /** @param graceMs undefined: its own. */
  async restart(containerId: string, graceMs: number | undefined): Promise<void> {
    const grace = graceMs === undefined ? '' : `?t=${Math.ceil(graceMs / 1000)}`;
    await this.#ask('POST', `/containers/${containerId}/restart${grace}`, { timeoutMs: startMs });
  }

  /** Whether it runs or not; its anonymous volumes, too. */
  async remove(containerId: string): Promise<void> {
    try {
      await this.#ask('DELETE', `/containers/${containerId}?force=true&v=true`, { timeoutMs: startMs });
    } catch (error) {
      if (!(error instanceof InroError) || error.code !== 'not_found') throw error;
    }
  }

  /** What happens to containers from now on. Ends with the signal. @throws when the engine ends it or cannot be reached. */
  async *events(signal: AbortSignal): AsyncGenerator<EngineEvent> {
    const filters = encodeURIComponent(JSON.stringify({ type: ['container'] }));
    const response = await this.#open('GET', `/events?filters=${filters}`, signal);
    let text = '';
    for await (const chunk of this.#chunks(response, signal)) {
      text += chunk;
      if (text.length > this.#limits.bytes) throw this.#broken('an event without an end');
      for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
        const line = text.slice(0, end);
        text = text.slice(end + 1);
        if (line.trim() === '') continue;
        const { Action, Actor, timeNano } = this.#checked(wire.event, this.#parse(line));
        yield { action: Action, containerId: Actor?.ID ?? '', atMs: timeNano / 1e6 };
      }
    }
  }

  async #get<T>(shape: z.ZodType<T>, path: string): Promise<T> {
    return this.#checked(shape, await this.#ask('GET', path));
  }

  async #ask(
    method: string,
    path: string,
    { body, timeoutMs = this.#limits.ms }: AskOptions = {},
  ): Promise<unknown> {
    const signal = AbortSignal.timeout(timeoutMs);
    const response = await this.#open(method, path, signal, body);
    const text = await this.#read(response, signal);
    return text === '' ? {} : this.#parse(text);
  }

  async #read(response: IncomingMessage, signal: AbortSignal): Promise<string> {
    let text = '';
    for await (const chunk of this.#chunks(response, signal)) {
      text += chunk;
      if (text.length > this.#limits.bytes) throw this.#broken(`more than ${this.#limits.bytes} bytes`);
    }
    return text;
  }

  /** @throws unreachable when it does not come to its end. */
  async *#chunks(response: IncomingMessage, signal: AbortSignal): AsyncGenerator<string> {
    try {
      for await (const chunk of response) yield chunk as string;
    } catch (cause) {
      throw this.#silent(cause as NodeJS.ErrnoException, signal);
    }
  }

  /** 2xx and 304 (it is so already) are answers; everything else is thrown in the engine's words. */
  async #open(method: string, path: string, signal: AbortSignal, body?: object): Promise<IncomingMessage> {
    const response = await this.#send(method, path, signal, body);
    const status = response.statusCode ?? 0;
    if ((status >= 200 && status < 300) || status === 304) return response;
    const said = await this.#read(response, signal).catch(() => '');
    const words = textIn(said, 'message') ?? `status ${status}`;
    if (status === 404) throw new InroError('not_found', `the container engine says: ${words}`);
    if (status === 409) throw new InroError('conflict', `the container engine says: ${words}`);
    if (status === 400) throw new InroError('bad_input', `the container engine says: ${words}`);
    throw new InroError('unreachable', `the container engine says: ${words}`);
  }

  #send(
    method: string,
    path: string,
    signal: AbortSignal,
    body: object | undefined,
  ): Promise<IncomingMessage> {
    const bytes = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
    const headers =
      bytes === undefined
        ? {}
        : { 'content-type': 'application/json', 'content-length': String(bytes.length) };
    return new Promise((resolve, reject) => {
      const sent = request({ socketPath: this.#socketPath, path, method, signal, headers, agent: false });
      sent.once('error', (cause) => reject(this.#silent(cause, signal)));
      sent.once('response', (response) => resolve(response.setEncoding('utf8')));
      sent.end(bytes);
    });
  }

  #silent(cause: NodeJS.ErrnoException, signal: AbortSignal): InroError {
    const why = isLate(signal) ? 'it takes too long' : (cause.code ?? cause.message);
    return new InroError('unreachable', `the container engine at ${this.address} does not answer: ${why}`, {
      remedy: 'start it, or say where its socket is: --docker SOCKET, key docker in agent.yaml',
      cause,
    });
  }

  #parse(text: string): unknown {
    try {
      return JSON.parse(text);
    } catch {
      throw this.#broken('what is not JSON');
    }
  }

  #checked<T>(shape: z.ZodType<T>, value: unknown): T {
    const { success, data, error } = shape.safeParse(value);
    if (success) return data;
    const [issue] = error.issues;
    throw this.#broken(`what was not asked for: ${issue?.path.join('.') || 'the whole'}: ${issue?.message}`);
  }

  #broken(what: string): InroError {
    return new InroError('protocol', `the container engine at ${this.address} answered ${what}`);
  }
}

function isLate({ reason }: AbortSignal): boolean {
  return (reason as Error | undefined)?.name === 'TimeoutError';
}

/** A text of a JSON object; undefined where there is none. */
function textIn(json: string, key: string): string | undefined {
  try {
    const value = (JSON.parse(json) as Record<string, unknown> | null)?.[key];
    return typeof value === 'string' ? value : undefined;
  } catch {
    return undefined;
  }
}
