/** inro manager unlock, inro manager unlock-key: on the manager's own host, through its socket. */
import { writeSync } from 'node:fs';
import { openArena, type Arena } from '../../crypto/arena.js';
import { drawExchangeKey } from '../../crypto/exchange.js';
import type { Plaintext } from '../../crypto/plaintext.js';
import { openUnlockKey, sealUnlockKey } from '../../crypto/unlock_exchange.js';
import { drawUnlockKey, unlockKeyChars, writeUnlockKey } from '../../crypto/unlock_key.js';
import { InroError } from '../../model/error.js';
import { Control } from '../../proto/gen/inro/v1/control_pb.js';
import { ManagerLock } from '../../proto/gen/inro/v1/lock_pb.js';
import { call, type Connection } from '../../rpc/client.js';
import { addon } from '../../system/addon.js';
import { systemClock } from '../../system/clock.js';
import { withManager } from '../operator.js';
import { paths } from '../paths.js';
import { printLine, warn } from '../print.js';
import { askForUnlockKey, unlockKeyFrom } from '../unlock_key_input.js';

const arenaBytes = 16 * 1024;
const startMs = 30_000;
const lookEveryMs = 100;

interface SocketOption {
  socket?: string | undefined;
}

/** @param source `-`, a path, `@NAME`; undefined: it is asked for at the terminal. */
export async function managerUnlock(source: string | undefined, { socket }: SocketOption): Promise<void> {
  const arena = ownArena();
  await onSocket({ socket }, async (manager) => {
    const { locked, exchangeKey } = await call(manager, ManagerLock, 'getLock', {});
    if (!locked) return printLine('the manager is not locked');
    const key =
      source === undefined && process.stdin.isTTY
        ? askForUnlockKey(arena)
        : unlockKeyFrom(source ?? '-', arena);
    try {
      await call(manager, ManagerLock, 'unlock', { key: sealUnlockKey(key, exchangeKey, arena) });
    } finally {
      key.wipe();
    }
    await untilItServes(socket);
    printLine('unlocked');
  });
}

export async function managerUnlockKey({
  rotate,
  new: draw,
  quiet,
  socket,
}: SocketOption & { rotate?: boolean; new?: boolean; quiet?: boolean }): Promise<void> {
  const arena = ownArena();
  const say = (text: string): void => {
    if (quiet !== true) warn(text);
  };
  if (draw === true) {
    const key = drawUnlockKey(arena);
    print(key, arena);
    key.wipe();
    return;
  }
  await onSocket({ socket }, async (manager) => {
    const { autolock, exchangeKey, keyVersion } = await call(manager, ManagerLock, 'getLock', {});
    if (autolock === 'on' && rotate !== true) return show(manager, arena);
    if (autolock === 'off')
      throw new InroError('not_supported', 'this manager has no unlock key: autolock is off', {
        remedy: "start it with --autolock, or write 'autolock: true' into manager.yaml",
      });
    // Shown before it counts: whatever breaks in between, somebody has the one that does.
    const key = drawUnlockKey(arena);
    try {
      print(key, arena);
      await call(manager, ManagerLock, 'setUnlockKey', {
        key: sealUnlockKey(key, exchangeKey, arena),
        ifKeyVersion: keyVersion,
      });
    } finally {
      key.wipe();
    }
    say(
      autolock === 'on'
        ? 'from now on this one unlocks the manager, and the former one does not'
        : 'from now on the keys on disk are wrapped, and the manager needs this after each start: inro manager unlock',
    );
    say('keep it where the manager’s disk and backups are not');
  });
}

async function show(manager: Connection, arena: Arena): Promise<void> {
  const own = drawExchangeKey(arena);
  try {
    const sealed = await call(manager, ManagerLock, 'getUnlockKey', { exchangeKey: own.publicKey });
    const key = openUnlockKey(sealed, own, arena);
    try {
      print(key, arena);
    } finally {
      key.wipe();
    }
  } finally {
    own.secret.wipe();
  }
}

/** Out of the arena, past any text. */
function print(key: Plaintext, arena: Arena): void {
  const line = arena.take(unlockKeyChars + 1);
  try {
    writeUnlockKey(key, line.expose());
    line.expose()[unlockKeyChars] = 10;
    for (let written = 0; written < line.size;) written += writeSync(1, line.expose(), written);
  } finally {
    line.wipe();
  }
}

/** After an unlock the manager begins anew on the same socket. @throws unreachable */
async function untilItServes(socket: string | undefined): Promise<void> {
  const untilMs = systemClock.boottimeMs() + startMs;
  for (;;) {
    try {
      const { locked } = await onSocket({ socket }, (manager) => call(manager, Control, 'getStatus', {}));
      if (!locked) return;
    } catch (error) {
      if (!(error instanceof InroError) || error.code !== 'unreachable') throw error;
    }
    if (systemClock.boottimeMs() > untilMs)
      throw new InroError('unreachable', 'the key was right, but the manager does not serve yet', {
        remedy: 'its log says why: journalctl -u inro-manager',
      });
    await systemClock.sleep(lookEveryMs);
  }
}

function onSocket<T>({ socket }: SocketOption, use: (manager: Connection) => Promise<T>): Promise<T> {
  return withManager({ manager: `unix:${socket ?? paths.managerSocket}` }, use);
}

function ownArena(): Arena {
  addon().forbidDumps();
  return openArena(arenaBytes);
}
