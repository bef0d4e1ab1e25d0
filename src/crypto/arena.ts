/** The arena: the locked memory that holds plaintext and keys; nothing else does. */
import { InroError } from '../model/error.js';
import { addon, type ArenaFacts, type NativeArena, type NativeServedArena } from '../system/addon.js';
import { Plaintext } from './plaintext.js';

/** secretbox wants this many zero bytes before the message (tweetnacl: crypto_secretbox_ZEROBYTES). */
export const paddingBytes = 32;

export interface Arena {
  /** @throws arena_full when no piece that large is free. */
  take(payloadBytes: number): Plaintext;
  facts(): ArenaFacts;
}

/** An arena that a mount can be served from. */
export interface ServedArena extends Arena {
  readonly served: NativeServedArena;
  /** The value behind a file that a predecessor left, once for each piece; undefined when it was wiped. */
  inherit(node: number, skip: number): Plaintext | undefined;
}

/** An arena of the native addon. `bytes` is all it will ever hold, padding included. */
export function openArena(bytes: number, kind: 'auto' | 'mlock' = 'auto'): Arena {
  return arenaOf(addon().createArena(bytes, kind));
}

/** @param nodes how many files, directories and links a mount of it can show. */
export function openServedArena(bytes: number, nodes: number, kind: 'auto' | 'mlock' = 'auto'): ServedArena {
  return servedArenaOf(addon().createArena(bytes, kind, nodes));
}

/** What another process left behind this descriptor, which is taken. @throws state_unusable with what is wrong with it. */
export function adoptServedArena(descriptor: number): ServedArena {
  try {
    return servedArenaOf(addon().adoptArena(descriptor));
  } catch (cause) {
    throw new InroError(
      'state_unusable',
      `what a former agent left in memory cannot be taken over: ${(cause as Error).message}`,
      { cause },
    );
  }
}

function servedArenaOf(served: NativeServedArena): ServedArena {
  return {
    ...arenaOf(served),
    served,
    inherit(node, skip) {
      const piece = served.valueOf(node);
      return piece === null ? undefined : new Plaintext(piece, skip, (buffer) => served.free(buffer));
    },
  };
}

function arenaOf(native: NativeArena): Arena {
  return {
    take(payloadBytes) {
      const piece = native.alloc(payloadBytes + paddingBytes);
      if (piece === null) {
        const { largestBytes, freeBytes } = native.facts();
        throw new InroError(
          'arena_full',
          `the arena has no room for ${payloadBytes} bytes (free ${freeBytes}, largest piece ${largestBytes})`,
          { remedy: 'remove references this node does not need, or give the agent a larger arena' },
        );
      }
      return new Plaintext(piece, paddingBytes, (buffer) => native.free(buffer));
    },
    facts: () => native.facts(),
  };
}
