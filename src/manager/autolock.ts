/**
 * Autolock: the manager's private keys on disk are wrapped (crypto/at_rest.ts) by a key that itself is wrapped by the unlock key, which
 * lies nowhere: after each start an operator, or a credential of the unit, has to bring it.
 *
 * `wrapping.key` in the manager's folder is one box (boxTag.wrappingKeys) under the unlock key: a format byte (1), the wrapping key, and,
 * while files may still be under it, the former wrapping key. The file is replaced in one step, so at each moment one unlock key opens
 * everything; and who has a former unlock key with a former copy of the file has no key of what is written since.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { openWrappingArena, overwriting, settlePrivateFiles, wrapWith } from '../crypto/at_rest.js';
import type { Arena } from '../crypto/arena.js';
import { drawKey, keyBytes } from '../crypto/exchange.js';
import type { Plaintext } from '../crypto/plaintext.js';
import { boxTag, openBox, sealBox } from '../crypto/secretbox.js';
import { InroError } from '../model/error.js';
import { removeFile, replaceFile } from '../system/files.js';
import { privateFilesIn } from './private_files.js';

const format = 1;

/** off; wanted: an operator has not had the unlock key yet, and nothing is wrapped before; on. */
export type AutolockState = 'off' | 'wanted' | 'on';

export class Autolock {
  readonly #folder: string;
  readonly #arena: Arena = openWrappingArena();
  #isWanted: boolean;
  #unlockKey: Plaintext | undefined;
  #wrappingKey: Plaintext | undefined;

  /** @param isWanted whether the keys are to be wrapped where they are not. */
  constructor(folder: string, isWanted: boolean) {
    this.#folder = folder;
    this.#isWanted = isWanted;
  }

  /** Whether its keys cannot be read before it is opened. */
  get isLocked(): boolean {
    return this.#unlockKey === undefined && existsSync(wrappingFile(this.#folder));
  }

  get state(): AutolockState {
    if (this.#unlockKey !== undefined || existsSync(wrappingFile(this.#folder))) return 'on';
    return this.#isWanted ? 'wanted' : 'off';
  }

  /** For keys on their way in; what is taken there is its taker's to wipe. */
  get arena(): Arena {
    return this.#arena;
  }

  /** @param unlockKey is kept when it is the right one, and the caller's to wipe otherwise. @throws bad_input, state_unusable. */
  open(unlockKey: Plaintext): void {
    const path = wrappingFile(this.#folder);
    const content = openFile(path, unlockKey, this.#arena);
    try {
      const bytes = content.expose();
      const count = (content.size - 1) / keyBytes;
      if (bytes[0] !== format || (count !== 1 && count !== 2))
        throw new InroError('state_unusable', `${path} is of a format that this version does not know`, {
          remedy: 'use the inro that wrote it',
        });
      const [key, former] = Array.from({ length: count }, (_, n) => {
        const one = this.#arena.take(keyBytes);
        one.expose().set(bytes.subarray(1 + n * keyBytes, 1 + (n + 1) * keyBytes));
        return one;
      });
      this.#unlockKey = unlockKey;
      this.#use(key as Plaintext, former);
    } finally {
      content.wipe();
    }
  }

  /**
   * From now on this one unlocks, and no other. Files that are there are wrapped anew.
   * @param unlockKey is kept. @param reached is told where a crash could come.
   * @throws state_unusable: where it could not be written, the former one is still the one.
   */
  lockWith(unlockKey: Plaintext, reached: (step: 'keys written') => void = () => undefined): void {
    const former = this.#wrappingKey;
    const key = drawKey(this.#arena);
    try {
      writeKeys(this.#folder, unlockKey, former === undefined ? [key] : [key, former], this.#arena);
    } catch (error) {
      key.wipe();
      throw error;
    }
    reached('keys written');
    if (this.#unlockKey !== unlockKey) this.#unlockKey?.wipe();
    this.#unlockKey = unlockKey;
    this.#isWanted = true;
    this.#use(key, former);
  }

  /** @throws not_supported where it is off or nobody has it yet. */
  get unlockKey(): Plaintext {
    if (this.#unlockKey !== undefined) return this.#unlockKey;
    throw new InroError('not_supported', 'this manager has no unlock key: autolock is off', {
      remedy: "start it with --autolock, or write 'autolock: true' into manager.yaml",
    });
  }

  /** @returns a copy for what is sealed under it; the caller wipes. Undefined where there is none. */
  copyOfKey(arena: Arena): Plaintext | undefined {
    if (this.#unlockKey === undefined) return undefined;
    const copy = arena.take(keyBytes);
    copy.expose().set(this.#unlockKey.expose());
    return copy;
  }

  /** Files lie there in clear again. @throws state_unusable. */
  turnOff(): void {
    const { state } = this;
    this.#isWanted = false;
    if (state !== 'on') return;
    this.#settle(true);
    const path = wrappingFile(this.#folder);
    overwriting(path, () => removeFile(path));
    wrapWith(undefined);
    for (const key of [this.#unlockKey, this.#wrappingKey]) key?.wipe();
    this.#unlockKey = undefined;
    this.#wrappingKey = undefined;
  }

  #use(key: Plaintext, former: Plaintext | undefined): void {
    this.#wrappingKey = key;
    this.#settle(false, former);
    if (former === undefined) return;
    writeKeys(this.#folder, this.unlockKey, [key], this.#arena);
    former.wipe();
    this.#settle(false);
  }

  #settle(unwraps: boolean, former?: Plaintext): void {
    wrapWith({
      key: this.#wrappingKey as Plaintext,
      ...(former === undefined ? {} : { former }),
      arena: this.#arena,
      name: 'the unlock key',
      unwraps,
    });
    settlePrivateFiles(privateFilesIn(this.#folder));
  }
}

function wrappingFile(folder: string): string {
  return join(folder, 'wrapping.key');
}

function openFile(path: string, unlockKey: Plaintext, arena: Arena): Plaintext {
  const box = readFileSync(path);
  if (box[0] !== boxTag.wrappingKeys)
    throw new InroError('state_unusable', `${path} is damaged`, {
      remedy: 'restore it from a backup of the whole folder',
    });
  try {
    return openBox(boxTag.wrappingKeys, box, unlockKey, arena);
  } catch (cause) {
    throw new InroError('bad_input', 'that unlock key does not open this manager', {
      remedy: `it is of another manager, or was rotated away; or ${path} is damaged`,
      cause,
    });
  }
}

function writeKeys(folder: string, unlockKey: Plaintext, keys: readonly Plaintext[], arena: Arena): void {
  const path = wrappingFile(folder);
  const content = arena.take(1 + keys.length * keyBytes);
  try {
    content.expose()[0] = format;
    keys.forEach((key, n) => content.expose().set(key.expose(), 1 + n * keyBytes));
    const write = (): void => replaceFile(path, sealBox(boxTag.wrappingKeys, content, unlockKey), 0o600);
    if (existsSync(path)) overwriting(path, write);
    else write();
  } finally {
    content.wipe();
  }
}
