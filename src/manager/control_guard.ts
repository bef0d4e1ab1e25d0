/**
 * In front of every call of Control: who calls, whether his role may, and a line in log and audit for what is changed or refused.
 * Waiting calls end when their operator does.
 */
import type { Logger } from 'pino';
import type { Clock } from '../model/clock.js';
import { asInroError, InroError } from '../model/error.js';
import { printable, quoted } from '../model/name.js';
import { controlRights, type Right } from '../proto/control_rights.js';
import { Control } from '../proto/gen/inro/v1/control_pb.js';
import type { Peer } from '../rpc/peer.js';
import type { CallContext, Handlers, Registration } from '../rpc/server.js';
import type { AuditBook } from './audit_book.js';
import { callerOf, operatorOf, socketOf, type ControlPeer } from './caller.js';
import { hostOf } from './join_guard.js';
import { managerLimits } from './limits.js';
import { Tries } from './tries.js';
import type { ClusterView } from './view.js';

export interface GuardParts {
  clusterId: string;
  audit: Pick<AuditBook, 'append' | 'appendStranger'>;
  view: ClusterView;
  clock: Clock;
  log: Logger;
}

type ControlHandlers = Handlers<typeof Control, 'operator'>;
type Handler = (request: Record<string, unknown>, context: CallContext<ControlPeer>) => Promise<unknown>;

/** @throws internal for a call that has no row in the table of rights. */
export function guarded(
  handlers: ControlHandlers,
  parts: GuardParts,
  rights: Readonly<Record<string, Right>> = controlRights,
): Pick<Registration, 'handlers' | 'refused'> {
  const refusals = new Refusals(parts);
  const wrapped = Object.keys(Control.method).map((name) => {
    const right = Object.hasOwn(rights, name) ? rights[name] : undefined;
    if (right === undefined)
      throw new InroError('internal', `nobody has decided who may call Control.${name}`);
    return [name, guard(name, right, handlers[name as keyof ControlHandlers] as Handler, parts, refusals)];
  });
  return {
    handlers: Object.fromEntries(wrapped) as Registration['handlers'],
    refused: (call, peer, why) => {
      const { said, line } = refusals.note({ call, object: '', peer }, why);
      void line;
      return said;
    },
  };
}

function guard(call: string, right: Right, handler: Handler, parts: GuardParts, refusals: Refusals): Handler {
  const { view, clock, clusterId } = parts;
  return async (request, { peer, signal }) => {
    const about = { call, object: objectOf(request, right), peer };
    // Who it was is asked before: one who removes himself is nobody afterwards.
    const who = whoOf(view, peer);
    const check = (): void => {
      if (peer.kind === 'operator') operatorOf(view, peer, clusterId, clock.now());
    };
    let result: unknown;
    try {
      check();
      const { name, role } = callerOf(view, peer);
      if (!right.roles.includes(role)) throw notPermitted(name ?? '', role, call, right);
      result =
        right.waits === true && peer.kind === 'operator'
          ? await whileValid(check, parts, peer.certificate.notAfterMs, signal, (until) =>
              handler(request, { peer, signal: until }),
            )
          : await handler(request, { peer, signal });
    } catch (error) {
      const { code } = asInroError(error);
      if (isRefusal(code) && peer.kind === 'operator') {
        const { said, line } = refusals.note(about, error);
        await line;
        throw said;
      }
      if (right.changes) await record(parts, about, who, code);
      throw error;
    }
    if (right.changes) await record(parts, about, who, 'done');
    return result;
  };
}

/** Durable when it resolves, if it can be. */
async function record(
  { audit, log }: GuardParts,
  { call, object }: About,
  who: Who,
  outcome: string,
  reason = '',
): Promise<void> {
  const { operator, operatorId = '', node = '', role = '', serial = '', address } = who;
  const facts = { ...who, call, object, outcome };
  if (reason === '') log.info(facts, 'operator call');
  else log.warn({ ...facts, why: reason }, 'operator call refused');
  const actor = address.startsWith('socket') ? 'socket' : operator || node;
  const line = { action: call, object, actor, actorId: operatorId, role, serial, address, outcome, reason };
  await (actor === '' || node !== '' ? audit.appendStranger(line) : audit.append(line));
}

/** @throws what `check` throws as soon as it does. */
async function whileValid<T>(
  check: () => void,
  { view, clock }: GuardParts,
  notAfterMs: number,
  signal: AbortSignal,
  use: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const over = new AbortController();
  const until = AbortSignal.any([signal, over.signal]);
  let end: (error: unknown) => void = () => undefined;
  const ended = new Promise<never>((_, reject) => (end = reject));
  const look = (): void => {
    try {
      check();
    } catch (error) {
      end(error);
      over.abort();
    }
  };
  const unfollow = view.onChange(look);
  const expiry = clock.timer(Math.min(notAfterMs - clock.now() + 1, managerLimits.maxWaitMs), look);
  try {
    return await Promise.race([use(until), ended]);
  } finally {
    expiry.cancel();
    unfollow();
  }
}

interface About {
  call: string;
  object: string;
  peer: Peer;
}

/** So many of one caller are told to the log and answered with why; more within the time are not. */
class Refusals {
  readonly #parts: GuardParts;
  readonly #tries: Tries;

  constructor(parts: GuardParts) {
    this.#parts = parts;
    this.#tries = new Tries(parts.clock, managerLimits.refusedCallsMs);
  }

  /** @returns what the caller hears, and when it is on record. */
  note(about: About, why: unknown): { said: unknown; line: Promise<void> } {
    const { view } = this.#parts;
    const { peer } = about;
    // What a known operator is refused is no fault of others at his address.
    const who =
      peer.kind === 'operator'
        ? `operator ${peer.operatorId}`
        : peer.kind === 'local'
          ? ''
          : hostOf(peer.address);
    const { code, message } = asInroError(why);
    if (this.#tries.count(who) >= managerLimits.maxRefusedCalls) {
      const said = new InroError(
        'rate_limited',
        `too many calls were refused, and this one is, too: ${message}`,
        {
          remedy: `what is permitted is answered; for ${Math.ceil(this.#tries.leftMs(who) / 1000)} s nothing is said of the rest`,
        },
      );
      return { said, line: Promise.resolve() };
    }
    this.#tries.note(who);
    return { said: why, line: record(this.#parts, about, whoOf(view, peer), code, message) };
  }
}

function isRefusal(code: InroError['code']): boolean {
  return ['not_permitted', 'unauthenticated', 'bad_certificate', 'foreign_cluster'].includes(code);
}

interface Who {
  operator: string;
  operatorId?: string;
  node?: string;
  role?: string;
  serial?: string;
  address: string;
}

/** For log and audit: who it was, as far as it is proved. */
function whoOf(view: ClusterView, peer: Peer): Who {
  switch (peer.kind) {
    case 'local':
      return { operator: '', role: 'admin', address: socketOf(peer) };
    case 'operator': {
      const { operatorId, address, certificate } = peer;
      const record = view.operators.get(operatorId);
      return {
        operator: record?.name ?? '',
        operatorId,
        role: record?.role ?? '',
        serial: certificate.serial,
        address,
      };
    }
    case 'node':
      return { operator: '', node: peer.nodeId, address: peer.address };
    case 'anonymous':
      return { operator: '', address: peer.address };
  }
}

function objectOf(request: Record<string, unknown>, { object }: Right): string {
  const value = object === '' ? '' : request[object];
  return typeof value === 'string' ? printable(value, managerLimits.maxObjectChars) : '';
}

function notPermitted(name: string, role: string, call: string, { roles }: Right): InroError {
  return new InroError(
    'not_permitted',
    `operator ${quoted(name)} is ${article(role)}, who may not call ${call}`,
    {
      remedy: `that is for ${roles.join(' or ')}: ask an admin of the cluster`,
    },
  );
}

function article(role: string): string {
  return `${/^[aeiou]/.test(role) ? 'an' : 'a'} ${role}`;
}
