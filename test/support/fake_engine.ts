/** What looks like a container engine on a unix socket, and answers as a test likes. */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';

export type Answer = (request: IncomingMessage, response: ServerResponse) => void;

export interface FakeEngine {
  socketPath: string;
  /** METHOD PATH of each. */
  asked: string[];
  answer: Answer;
}

/** @param answer of the first requests; may be replaced. */
export async function fakeEngine(t: ExecutionContext, answer: Answer = json([])): Promise<FakeEngine> {
  const folder = mkdtempSync(join(tmpdir(), 'engine-'));
  const engine: FakeEngine = { socketPath: join(folder, 'sock'), asked: [], answer };
  const server = createServer((request, response) => {
    engine.asked.push(`${request.method} ${request.url}`);
    engine.answer(request, response);
  });
  await new Promise<void>((resolve) => server.listen(engine.socketPath, resolve));
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
    rmSync(folder, { recursive: true, force: true });
  });
  return engine;
}

export function json(body: unknown, status = 200): Answer {
  return (_, response) => void response.writeHead(status).end(JSON.stringify(body));
}

export function text(body: string, status = 200): Answer {
  return (_, response) => void response.writeHead(status).end(body);
}
