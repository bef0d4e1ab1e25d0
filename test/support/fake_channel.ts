/**
 * Both ends of an agent's stream, in memory. Each message goes through its wire form, so that what arrives is
 * what a network would have brought; there is always room, and nothing is lost.
 */
import {
  create,
  fromBinary,
  toBinary,
  type DescMessage,
  type MessageInitShape,
  type MessageShape,
} from '@bufbuild/protobuf';
import { InroError } from '../../src/model/error.js';
import { AgentMessageSchema, ManagerMessageSchema } from '../../src/proto/gen/inro/v1/dispatcher_pb.js';
import type { Channel } from '../../src/rpc/stream.js';

export interface ChannelPair<Up extends DescMessage, Down extends DescMessage> {
  agent: Channel<MessageInitShape<Up>, MessageShape<Down>>;
  manager: Channel<MessageInitShape<Down>, MessageShape<Up>>;
  /** The network breaks: both ends throw this. */
  breakOff(error?: Error): void;
}

export function fakeStream(): ChannelPair<typeof AgentMessageSchema, typeof ManagerMessageSchema> {
  return channelPair(AgentMessageSchema, ManagerMessageSchema);
}

function channelPair<Up extends DescMessage, Down extends DescMessage>(
  upSchema: Up,
  downSchema: Down,
): ChannelPair<Up, Down> {
  const over = new AbortController();
  const up = new Queue<MessageShape<Up>>();
  const down = new Queue<MessageShape<Down>>();
  const end = (error?: Error): void => {
    up.end(error);
    down.end(error);
    over.abort();
  };
  const side = <Out extends DescMessage, In extends DescMessage>(
    schema: Out,
    out: Queue<MessageShape<Out>>,
    incoming: Queue<MessageShape<In>>,
  ): Channel<MessageInitShape<Out>, MessageShape<In>> => ({
    async send(message) {
      if (over.signal.aborted) throw out.failure ?? new InroError('unreachable', 'the stream is over');
      out.put(fromBinary(schema, toBinary(schema, create(schema, message))));
    },
    messages: incoming,
    closed: over.signal,
    close: () => end(),
  });
  return {
    agent: side<Up, Down>(upSchema, up, down),
    manager: side<Down, Up>(downSchema, down, up),
    breakOff: (error = new InroError('unreachable', 'the connection is lost')) => end(error),
  };
}

class Queue<T> implements AsyncIterable<T>, AsyncIterator<T> {
  readonly #items: T[] = [];
  #wake: (() => void) | undefined;
  #ended = false;
  failure: Error | undefined;

  put(item: T): void {
    this.#items.push(item);
    this.#wake?.();
  }

  end(failure?: Error): void {
    if (this.#ended) return;
    this.#ended = true;
    this.failure = failure;
    this.#wake?.();
  }

  async next(): Promise<IteratorResult<T>> {
    while (this.#items.length === 0 && !this.#ended) {
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    if (this.#items.length > 0) return { done: false, value: this.#items.shift() as T };
    if (this.failure !== undefined) throw this.failure;
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): AsyncIterator<T> {
    return this;
  }
}
