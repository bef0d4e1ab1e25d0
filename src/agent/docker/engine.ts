/**
 * The container engine's API (docs.docker.com/reference/api/engine; Podman serves the same) over its unix socket, as much of it as the agent
 * needs. No value of a secret ever goes there.
 */
import { request, type IncomingMessage } from 'node:http';
import { InroError } from '../../model/error.js';

export interface ListedContainer {
  id: string;
  name: string;
  /** created, running, paused, restarting, removing, exited, dead. */
  state: string;
  /** Names of the volumes it has of one driver. */
  volumes: readonly string[];
}

export interface EngineEvent {
  /** start, die, destroy, ... */
  action: string;
  containerId: string;
}

interface WireContainer {
  Id: string;
  Names?: string[];
  State: string;
  Mounts?: { Type: string; Name?: string; Driver?: string }[];
}

const maxAnswerBytes = 16 * 1024 * 1024;
const answerMs = 10_000;

export class Engine {
  readonly #socketPath: string;

  constructor(socketPath: string) {
    this.#socketPath = socketPath;
  }

  get address(): string {
    return `unix:${this.#socketPath}`;
  }

  /** All containers that name a volume of this driver, whether they run or not. @throws unreachable, protocol. */
  async containersWithVolumes(driver: string): Promise<ListedContainer[]> {
    const found = (await this.#ask('GET', '/containers/json?all=true')) as WireContainer[];
    return found
      .map(({ Id, Names, State, Mounts = [] }) => ({
        id: Id,
        name: (Names?.[0] ?? Id.slice(0, 12)).replace(/^\//, ''),
        state: State,
        volumes: Mounts.flatMap(({ Type, Name, Driver }) =>
          Type === 'volume' && Driver === driver && Name !== undefined ? [Name] : [],
        ),
      }))
      .filter(({ volumes }) => volumes.length > 0);
  }

  /** Of its first process; 0 while there is none. @throws not_found, unreachable, protocol. */
  async pidOf(containerId: string): Promise<number> {
    const { State } = (await this.#ask('GET', `/containers/${containerId}/json`)) as {
      State?: { Pid?: number };
    };
    return State?.Pid ?? 0;
  }

  /** What happens to containers from now on. Ends with the signal. @throws when the engine ends it or cannot be reached. */
  async *events(signal: AbortSignal): AsyncGenerator<EngineEvent> {
    const filters = encodeURIComponent(JSON.stringify({ type: ['container'] }));
    const response = await this.#open('GET', `/events?filters=${filters}`, signal);
    let text = '';
    for await (const chunk of response) {
      text += chunk as string;
      if (text.length > maxAnswerBytes) throw this.#broken('an event without an end');
      for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
        const line = text.slice(0, end);
        text = text.slice(end + 1);
        if (line.trim() === '') continue;
        const { Action, Actor, id } = this.#parse(line) as {
          Action?: string;
          Actor?: { ID?: string };
          id?: string;
        };
        yield { action: Action ?? '', containerId: Actor?.ID ?? id ?? '' };
      }
    }
  }

  async #ask(method: string, path: string): Promise<unknown> {
    const signal = AbortSignal.timeout(answerMs);
    const response = await this.#open(method, path, signal);
    let text = '';
    for await (const chunk of response) {
      text += chunk as string;
      if (text.length > maxAnswerBytes) throw this.#broken('an answer of more than 16 MiB');
    }
    return this.#parse(text);
  }

  #open(method: string, path: string, signal: AbortSignal): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const sent = request({ socketPath: this.#socketPath, path, method, signal, agent: false });
      sent.once('error', (cause: NodeJS.ErrnoException) => {
        reject(
          new InroError(
            'unreachable',
            `the container engine at ${this.address} does not answer: ${cause.code ?? cause.message}`,
            {
              remedy: 'start it, or say where its socket is: --docker SOCKET, key docker in agent.yaml',
              cause,
            },
          ),
        );
      });
      sent.once('response', (response) => {
        const status = response.statusCode ?? 0;
        if (status >= 200 && status < 300) return resolve(response.setEncoding('utf8'));
        response.resume();
        reject(
          status === 404
            ? new InroError('not_found', `the container engine knows no ${path}`)
            : this.#broken(`status ${status} for ${path}`),
        );
      });
      sent.end();
    });
  }

  #parse(text: string): unknown {
    try {
      return JSON.parse(text);
    } catch {
      throw this.#broken('what is not JSON');
    }
  }

  #broken(what: string): InroError {
    return new InroError('protocol', `the container engine at ${this.address} answered ${what}`);
  }
}
