/** A gRPC stream as an ordered channel with back-pressure: what agent and manager speak through. */
import type { Duplex } from 'node:stream';
import { InroError } from '../model/error.js';
import { systemClock } from '../system/clock.js';
import { rpcLimits } from './limits.js';

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
  /** Messages that are written and not on their way yet, and who waits for room. */
  let unsent = 0;
  const wakers: (() => void)[] = [];
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
      unsent += 1;
      // Its own high-water mark is 16 messages, however large.
      stream.write(message, () => {
        unsent -= 1;
        wakers.shift()?.();
      });
      if (unsent <= rpcLimits.maxUnsentMessages) return;
      await new Promise<void>((resolve, reject) => {
        const settle = (): void => {
          over.signal.removeEventListener('abort', settle);
          if (over.signal.aborted) reject(failure ?? new InroError('unreachable', 'the stream is over'));
          else resolve();
        };
        wakers.push(settle);
        over.signal.addEventListener('abort', settle, { once: true });
      });
    },
    messages: read<In>(
      stream,
      over.signal,
      () => isClosed,
      () => failure,
    ),
    close(reason) {
      isClosed = true;
      finish(reason);
      if (stream.cancel !== undefined) return stream.cancel();
      if (reason !== undefined && refuse !== undefined) refuse(reason);
      else stream.end();
      // The other side may never end its half: what it still sends is not read any more. But it hears of this end first,
      // behind what is being written, unless it does not take that.
      const late = systemClock.timer(rpcLimits.closeMs, () => stream.destroy());
      const cut = (): void => {
        late.cancel();
        setImmediate(() => stream.destroy());
      };
      if (stream.writableFinished) cut();
      else stream.once('finish', cut);
    },
  };
}

/**
 * What had arrived before our own close() is not given out after it. The stream's own iterator would destroy the stream when an
 * error is put on it, and so what this side has still to say.
 */
async function* read<In>(
  stream: Duplex,
  over: AbortSignal,
  isClosed: () => boolean,
  failure: () => Error | undefined,
): AsyncGenerator<In> {
  let wake = (): void => undefined;
  let hasEnded = false;
  const look = (): void => wake();
  const end = (): void => {
    hasEnded = true;
    wake();
  };
  stream.on('readable', look);
  stream.once('end', end);
  over.addEventListener('abort', look, { once: true });
  try {
    while (!isClosed()) {
      const message: unknown = stream.destroyed ? null : stream.read();
      if (message !== null) yield message as In;
      else if (hasEnded || over.aborted) break;
      else await new Promise<void>((resolve) => (wake = resolve));
    }
  } finally {
    stream.off('readable', look);
    stream.off('end', end);
    over.removeEventListener('abort', look);
  }
  const reason = failure();
  if (reason !== undefined) throw reason;
  if (!hasEnded && !isClosed()) throw new InroError('unreachable', 'the stream broke off');
}
