/**
 * The network between an agent and its manager, as something that a test can break at a chosen moment. It sees TLS
 * records only, so it tells messages by their size: what carries a receipt is longer than all that is said in idle times.
 */
import { createConnection, createServer, type AddressInfo, type Socket } from 'node:net';
import type { ExecutionContext } from 'ava';

/** A signed receipt with its ids has about 170 bytes; a heartbeat or a task's state less than 130, with what TLS adds. */
const receiptBytes = 150;

export class Wire {
  /** HOST:PORT for the agent. */
  readonly address: string;
  readonly #sockets: Set<Socket>;
  readonly #rules: Rules;

  private constructor(address: string, sockets: Set<Socket>, rules: Rules) {
    this.address = address;
    this.#sockets = sockets;
    this.#rules = rules;
  }

  /** @param manager HOST:PORT */
  static async to(t: ExecutionContext, manager: string): Promise<Wire> {
    const sockets = new Set<Socket>();
    const rules: Rules = { onReceipt: () => true, holdsAnswers: false };
    const [host = '', port = ''] = manager.split(':');
    const server = createServer((up) => {
      const down = createConnection({ host, port: Number(port) });
      for (const [from, to, mayPass] of [
        [up, down, (bytes: Buffer) => bytes.length < receiptBytes || rules.onReceipt()],
        [down, up, () => !rules.holdsAnswers],
      ] as const) {
        sockets.add(from);
        from.on('data', (bytes: Buffer) => mayPass(bytes) && to.write(bytes));
        from.on('error', () => undefined);
        from.on('close', () => {
          sockets.delete(from);
          to.destroy();
        });
      }
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    t.teardown(() => {
      server.close();
      for (const socket of sockets) socket.destroy();
    });
    return new Wire(`127.0.0.1:${(server.address() as AddressInfo).port}`, sockets, rules);
  }

  /**
   * Resolves when the next receipt is on its way up; from then on nothing comes down, until `cut`.
   * @param options.lost it never arrives.
   */
  atReceipt({ lost }: { lost: boolean }): Promise<void> {
    return new Promise((resolve) => {
      this.#rules.onReceipt = () => {
        this.#rules.holdsAnswers = true;
        resolve();
        return !lost;
      };
    });
  }

  /** The connections that there are break; new ones are whole. */
  cut(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
    Object.assign(this.#rules, { onReceipt: () => true, holdsAnswers: false });
  }
}

interface Rules {
  /** Whether what may be a receipt passes. */
  onReceipt: () => boolean;
  holdsAnswers: boolean;
}
