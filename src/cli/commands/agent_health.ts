/** inro agent health: one word for scripts, and the exit code that container health checks want. */
import { healthOf, type Health } from '../../agent/health.js';
import { asInroError } from '../../model/error.js';
import { paths } from '../paths.js';
import { printJson, printLine, warn } from '../print.js';
import { fetchStatus } from './agent.js';

export async function agentHealth({ socket, json }: { socket?: string; json?: boolean }): Promise<void> {
  const found = await ask(socket ?? paths.agentSocket);
  if (json === true) printJson(found);
  else {
    printLine(found.health);
    found.reasons.forEach(warn);
  }
  if (found.health === 'unhealthy') process.exitCode = 1;
}

/** Whatever keeps an agent from answering is its health. */
async function ask(socket: string): Promise<Health> {
  try {
    return healthOf(await fetchStatus(socket));
  } catch (thrown) {
    return { health: 'unhealthy', reasons: [asInroError(thrown).message] };
  }
}
