/** A gRPC stream as an ordered channel with back-pressure: what agent and manager speak through. */
import type { Duplex } from 'node:stream';
import { InroError } from '../model/error.js';

export interface Channel<Out, In> {
  /** Resolves when the message is on its way and there is room for the next; rejects when the stream is over. */
  send(message: Out): Promise<void>;
  /** Ends when the other side ends; throws when the stream breaks. To be read once. */
  messages: AsyncIterable<In>;
  /** Aborts when the stream is over, for whatever reason. */
  closed: AbortSignal;
  /** Ends the stream from this side. A server's caller gets the reason as the call's error. */
  close(reason?: InroError): void;
}

/** @param translate makes the stream's own errors ours. */
export function channelOf<Out, In>(
  stream: Duplex & { cancel?: () => void },
  translate: (error: Error) => Error,
  refuse?: (reason: InroError) => void,
): Channel<Out, In> {
  const over = new AbortController();
  let failure: Error | undefined;
  let isClosed = false;
  const finish = (error?: Error): void => {
    failure ??= error;
    over.abort();
  };
  stream.on('error', (error: Error) => finish(translate(error)));
  stream.on('close', () => finish());
  stream.on('cancelled', () => finish());
  return {
    closed: over.signal,
    async send(message) {
      if (over.signal.aborted) throw failure ?? new InroError('unreachable', 'the stream is over');
      if (stream.write(message)) return;
      await new Promise<void>((resolve, reject) => {
        const settle = (): void => {
          stream.removeListener('drain', settle);
          over.signal.removeEventListener('abort', settle);
          if (over.signal.aborted) reject(failure ?? new InroError('unreachable', 'the stream is over'));
          else resolve();
        };
        stream.once('drain', settle);
        over.signal.addEventListener('abort', settle, { once: true });
      });
    },
    messages: read<In>(
      stream,
      () => isClosed,
      () => failure,
    ),
    close(reason) {
      isClosed = true;
      finish(reason);
      if (stream.cancel !== undefined) return stream.cancel();
      if (reason !== undefined && refuse !== undefined) refuse(reason);
      else stream.end();
      // The other side may never end its half: what it still sends is not read any more.
      setImmediate(() => stream.destroy());
    },
  };
}

/** What had arrived before our own close() is not given out after it. */
async function* read<In>(
  stream: Duplex,
  isClosed: () => boolean,
  failure: () => Error | undefined,
): AsyncGenerator<In> {
  try {
    for await (const message of stream) {
      if (isClosed()) break;
      yield message as In;
    }
  } catch (error) {
    const reason = failure();
    if (reason !== undefined) throw reason;
    if (!isClosed()) throw error;
  }
  const reason = failure();
  if (isClosed() && reason !== undefined) throw reason;
}
