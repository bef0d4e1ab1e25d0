/** Says in time that the CA nears its end: no certificate outlives it, and what it issues gets shorter and shorter. */
import type { Logger } from 'pino';
import type { Clock } from '../model/clock.js';
import type { Authorities } from './authorities.js';
import { managerLimits } from './limits.js';

/** Until the signal aborts. */
export async function watchCaEnd(
  { authority, clock, log }: { authority: Authorities; clock: Clock; log: Logger },
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    const [end] = [...authority.chain].sort((a, b) => a.notAfterMs - b.notAfterMs);
    if (end !== undefined && end.notAfterMs - clock.now() < managerLimits.caEndWarningMs)
      log.warn(
        {
          ends: new Date(end.notAfterMs).toISOString(),
          subject: end.x509.subject?.replaceAll('\n', ', '),
          remedy: authority.isExternal
            ? 'found another cluster with another CA before then; its hosts join that with its tokens'
            : "have another CA sign before then: 'inro ca rotate', or with --ca-cert and --ca-key",
        },
        'the CA nears its end, and no certificate outlives it',
      );
    await clock.sleep(managerLimits.caEndCheckMs, signal);
  }
}
