/**
 * The socket on which container engines ask for volumes: POST with JSON, answered by JSON; an error is words in `Err`, which the engine
 * shows to whoever started the container (docs.docker.com/engine/extend/plugins_volume).
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { lstatSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Logger } from 'pino';
import { asInroError, InroError } from '../../model/error.js';
import { makeFolder } from '../../system/files.js';
import { answers } from '../../rpc/server.js';

/** Of one call, by its name without `/VolumeDriver.`. */
export type PluginHandlers = Readonly<Record<string, (request: PluginRequest) => Promise<object>>>;

export interface PluginRequest {
  Name: string;
  ID: string;
  Opts: Readonly<Record<string, string>>;
}

const maxRequestBytes = 64 * 1024;
const contentType = 'application/vnd.docker.plugins.v1.2+json';

/** @returns ends it. @throws socket_taken, state_unusable. */
export async function servePlugin(
  path: string,
  handlers: PluginHandlers,
  log: Logger,
): Promise<() => Promise<void>> {
  if (await answers(path))
    throw new InroError('socket_taken', `another process serves ${path}`, {
      remedy: 'end it, or run with --docker off',
    });
  const server = createServer((request, response) => {
    void answer(request, response, handlers, log);
  });
  server.maxConnections = 64;
  const umask = process.umask(0o022);
  try {
    makeFolder(dirname(path), 0o755);
    if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() === false)
      throw new Error('something else is there, and stays');
    rmSync(path, { force: true });
    process.umask(0o177);
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen(path, resolve));
  } catch (cause) {
    throw new InroError(
      'state_unusable',
      `cannot serve the volume plugin at ${path}: ${(cause as Error).message}`,
      {
        remedy: 'check that its folder can be written, or run with --docker off',
        cause,
      },
    );
  } finally {
    process.umask(umask);
  }
  return () =>
    new Promise((resolve) => {
      rmSync(path, { force: true });
      server.close(() => resolve());
      server.closeAllConnections();
    });
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  handlers: PluginHandlers,
  log: Logger,
): Promise<void> {
  const send = (status: number, body: object): void => {
    response.writeHead(status, { 'content-type': contentType }).end(`${JSON.stringify(body)}\n`);
  };
  try {
    const path = request.url ?? '';
    if (path === '/Plugin.Activate') return send(200, { Implements: ['VolumeDriver'] });
    const call = path.replace(/^\/VolumeDriver\./, '');
    const handler = Object.hasOwn(handlers, call) ? handlers[call] : undefined;
    if (request.method !== 'POST' || call === path || handler === undefined)
      return send(404, { Err: `inro knows no ${path}` });
    send(200, { ...(await handler(await read(request))), Err: '' });
  } catch (thrown) {
    const error = asInroError(thrown);
    if (error.code !== 'not_found')
      log.error({ err: error, call: request.url }, 'a container engine was refused');
    // Podman looks at the status alone, Docker at the words.
    send(500, { Err: `inro: ${error.message}${error.remedy === undefined ? '' : ` (${error.remedy})`}` });
  }
}

async function read(request: IncomingMessage): Promise<PluginRequest> {
  let text = '';
  for await (const chunk of request.setEncoding('utf8')) {
    text += chunk as string;
    if (text.length > maxRequestBytes)
      throw new InroError('too_large', 'the request of the container engine is too large');
  }
  let body: Partial<PluginRequest> | null;
  try {
    body = text.trim() === '' ? {} : (JSON.parse(text) as Partial<PluginRequest> | null);
  } catch {
    throw new InroError('bad_input', 'the request of the container engine is not JSON');
  }
  const { Name, ID, Opts } = body ?? {};
  const isText = (value: unknown): value is string => typeof value === 'string' && value.length <= 255;
  return {
    Name: isText(Name) ? Name : '',
    ID: isText(ID) ? ID : '',
    Opts: typeof Opts === 'object' && Opts !== null ? Opts : {},
  };
}
