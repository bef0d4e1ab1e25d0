/**
 * Secrets for units of systemd: `LoadCredential=ID:SOCKET` of a unit gives it a file of the service that is bound to it. Here is
 * decided who gets what; the bytes go from the arena to the socket without JavaScript (native/core/credentials.h).
 */
import type { Logger } from 'pino';
import type { Random } from '../../model/clock.js';
import { asInroError } from '../../model/error.js';
import { newId } from '../../model/id.js';
import { printable } from '../../model/name.js';
import {
  accessOutcomes,
  addon,
  type NativeCredentialRequest,
  type NativeCredentials,
} from '../../system/addon.js';
import type { NativeServedArena, ProcessFacts } from '../../system/addon.js';
import type { AccessLog, Delivery } from '../access/access_log.js';
import type { HostTask, HostTasks } from '../host_tasks.js';
import type { Lease } from '../lease.js';
import type { AccessedFile } from '../mount/accesses.js';
import type { MountDriver } from '../mount/driver.js';
import { cgroupOfItsOwn } from '../workloads/attach_call.js';
import { boundTo } from './binding.js';
import { removeListener, type Listener } from './listener.js';

export interface CredentialsParts {
  served: NativeServedArena;
  driver: Pick<MountDriver, 'nodeOf'>;
  tasks: HostTasks;
  lease: Pick<Lease, 'holds'>;
  accesses: Pick<AccessLog, 'add'>;
  random: Random;
  log: Logger;
}

interface Refusal {
  outcome: Delivery['outcome'];
  why: string;
  file?: AccessedFile;
}

const maxWordsChars = 500;

export class Credentials {
  readonly #parts: CredentialsParts;
  readonly #listener: Listener;
  readonly #native: NativeCredentials;
  #isOpen = false;
  #cutOff = 0;

  /** Whoever asks waits until open(). @throws when there can be no thread. */
  constructor(parts: CredentialsParts, listener: Listener) {
    this.#parts = parts;
    this.#listener = listener;
    this.#native = parts.served.serveCredentials(listener.descriptor, () => this.#answerAll());
  }

  get listener(): Listener {
    return this.#listener;
  }

  /** From now on it is known what this node should have, or nobody is going to say it soon. */
  open(): void {
    if (this.#isOpen) return;
    this.#isOpen = true;
    this.#answerAll();
  }

  /** Nobody finds it any more; who waits fails. */
  end(): void {
    removeListener(this.#listener);
    this.#native.stop();
  }

  /** Who waits, waits for who has the same socket. */
  letGo(): void {
    this.#native.stop();
  }

  #answerAll(): void {
    if (!this.#isOpen) return; // they wait in the socket's queue
    for (let request = this.#native.accept(); request !== null; request = this.#native.accept())
      this.#answer(request);
    const { cutOff } = this.#native.facts();
    if (cutOff > this.#cutOff)
      this.#parts.log.error(
        { count: cutOff - this.#cutOff },
        'units that did not read their credentials had to make room: what they have is cut',
      );
    this.#cutOff = cutOff;
  }

  /** Never throws: an answer that is missing would be an empty credential. */
  #answer(request: NativeCredentialRequest): void {
    const { log } = this.#parts;
    const { connection, unit, id, uid, pid } = request;
    const process = pid === 0 ? null : addon().processOf(pid);
    let refusal: Refusal | undefined;
    try {
      refusal = this.#deliver(request, process);
    } catch (thrown) {
      refusal = { outcome: 'not bound', why: asInroError(thrown).message };
    }
    if (refusal === undefined) {
      log.info({ unit, credential: id, uid, pid }, 'credential given');
      return;
    }
    const { outcome, why, file = noFile(id) } = refusal;
    this.#native.refuse(connection, printable(`inro: ${why}`, maxWordsChars));
    log.warn({ unit, credential: id, uid, pid, why }, 'credential refused: the unit does not start');
    this.#record(request, process, file, outcome);
  }

  /** Named checks in their order; undefined when the value is on its way. */
  #deliver(request: NativeCredentialRequest, process: ProcessFacts | null): Refusal | undefined {
    const { driver, tasks, lease } = this.#parts;
    const { connection, unit, id, trusted, uid } = request;
    if (!trusted) return { outcome: 'not bound', why: `user ${uid} may not ask` };
    if (unit === '')
      return { outcome: 'not bound', why: 'this socket is for LoadCredential= of units: no unit asks here' };
    if (!lease.holds()) return { outcome: 'lease over', why: 'the lease is over: no manager was heard' };
    const bound = boundTo(request, tasks.list());
    if ('refusal' in bound) return { outcome: bound.refusal, why: bound.why };
    const { assigned } = bound.task;
    const { reference, version } = bound.reference;
    const { secretId = '', secretName = '' } = reference ?? {};
    const { id: taskId, serviceName } = assigned;
    const file = { taskId, serviceName, secretId, secretName, version, target: id };
    const node = driver.nodeOf?.(taskId, id);
    if (node === undefined) return { outcome: 'wiped', why: `${id} is not shown on this node`, file };
    // Before it has the value: it is never given to who is not on the list.
    this.#attach(unit, process, bound.task);
    const outcome = accessOutcomes[this.#native.give(connection, node)] ?? 'wiped';
    if (outcome !== 'opened') return { outcome, why: `${id} cannot be given: ${outcome}`, file };
    this.#record(request, process, file, outcome);
    return undefined;
  }

  /** Once for all credentials of a start. Without a cgroup of its own nobody could tell when it ends: then it is not attached. */
  #attach(unit: string, process: ProcessFacts | null, { assigned }: HostTask): void {
    const { tasks, random } = this.#parts;
    const cgroup = process === null ? undefined : cgroupOfItsOwn(process);
    if (cgroup === undefined) return;
    tasks.attachOnce(assigned.serviceId, { kind: 'unit', name: unit, cgroup }, newId(random));
  }

  #record(
    { unit, uid, gid, pid }: NativeCredentialRequest,
    process: ProcessFacts | null,
    file: AccessedFile,
    outcome: Delivery['outcome'],
  ): void {
    const { startTicks = 0, name = '', cgroupPath: cgroup = '' } = process ?? {};
    const workload = unit === '' ? '' : `unit ${unit}`;
    this.#parts.accesses.add({ file, outcome, uid, gid, process: pid, startTicks, name, cgroup, workload });
  }
}

function noFile(target: string): AccessedFile {
  return { taskId: '', serviceName: '', secretId: '', secretName: '', version: 0, target };
}
