/** Talking to the agent of this host over its socket. */
import { InroError } from '../model/error.js';
import { connectUnix, type Connection } from './client.js';

/** @throws unreachable, in words for whoever looked for an agent there; and whatever `use` throws. */
export async function withAgent<T>(socket: string, use: (connection: Connection) => Promise<T>): Promise<T> {
  const connection = connectUnix(socket, 'the agent');
  try {
    return await use(connection);
  } catch (error) {
    if (!(error instanceof InroError) || error.code !== 'unreachable') throw error;
    const reason = /EACCES/.test(error.message) ? 'this user may not open it' : 'nothing answers there';
    throw new InroError('unreachable', `no agent at unix:${socket}: ${reason}`, {
      remedy:
        "start one with 'inro dev' or 'inro agent run', run this as the user it runs as, or say where it is: --socket PATH",
      cause: error,
    });
  } finally {
    connection.close();
  }
}
