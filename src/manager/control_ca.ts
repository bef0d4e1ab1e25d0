/** What operators do with the cluster's CA. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Logger } from 'pino';
import { durationText } from '../model/duration.js';
import { InroError } from '../model/error.js';
import { readCertificate } from '../pki/certificate.js';
import { readChain } from '../pki/chain.js';
import { limits } from '../pki/limits.js';
import { roles } from '../pki/role.js';
import type { CaNodeSchema, CaSchema, Control } from '../proto/gen/inro/v1/control_pb.js';
import type { ClusterRecord, NodeRecord } from '../proto/gen/inro/v1/records_pb.js';
import type { Handlers } from '../rpc/server.js';
import type { Store } from '../store/store.js';
import { tables } from '../store/tables.js';
import { transact } from '../store/transaction.js';
import type { Authorities } from './authorities.js';
import type { CaRotation } from './ca_rotation.js';
import { profileOf } from './cfssl.js';
import { certificateLifetimeMs, clusterIn, readCluster } from './cluster_record.js';
import type { Dispatcher } from './dispatcher.js';
import type { ExternalCaState } from './external_ca.js';
import { noteChange, versionOf } from './if_version.js';
import { managerLimits } from './limits.js';
import type { ClusterView } from './view.js';

export interface CaHandlersParts {
  authority: Authorities;
  rotation: CaRotation;
  dispatcher: Dispatcher;
  view: ClusterView;
  store: Store;
  externalCas: () => readonly ExternalCaState[];
  log: Logger;
}

type Calls = 'getCa' | 'updateCa' | 'rotateCa';

export function caHandlers(parts: CaHandlersParts): Pick<Handlers<typeof Control, 'operator'>, Calls> {
  const { rotation, store, log } = parts;
  return {
    getCa: async () => shown(await readCluster(store), parts),

    updateCa: async ({ certificateLifetimeMs: lifetimeMs, rotationDeadlineMs, ifVersion }) => {
      if (lifetimeMs !== undefined) {
        if (parts.authority.isExternal)
          throw new InroError('not_supported', 'the external CA decides how long its certificates last', {
            remedy: `change the expiry of its profiles: ${roles.map(profileOf).join(', ')}`,
          });
        checkLifetime(Number(lifetimeMs));
      }
      if (rotationDeadlineMs !== undefined) {
        noteChange(await readCluster(store), 'the CA', ifVersion);
        await rotation.setDeadline(Number(rotationDeadlineMs));
      }
      const { result } = await transact(store, async (tx) => {
        const cluster = await clusterIn(tx);
        noteChange(cluster, 'the CA', ifVersion);
        if (lifetimeMs !== undefined) cluster.certificateLifetimeMs = lifetimeMs;
        tx.put(tables.cluster, 'self', cluster);
        return cluster;
      });
      if (lifetimeMs !== undefined)
        log.info({ lifetime: durationText(certificateLifetimeMs(result)) }, 'the CA was updated');
      return shown(result, parts);
    },

    rotateCa: async ({ certPem, keyPem, deadlineMs }, { peer }) => {
      const isGiven = certPem !== '' || keyPem !== '';
      if (isGiven && peer.kind !== 'local')
        throw new InroError('not_permitted', 'the key of a CA is not taken over the network', {
          remedy:
            "type this on the manager's own host, through its socket; without --ca-cert it can be done from here",
        });
      await rotation.begin(isGiven ? { certPem, keyPem } : undefined, Number(deadlineMs));
      return shown(await readCluster(store), parts);
    },
  };
}

function shown(cluster: ClusterRecord, parts: CaHandlersParts): MessageInitShape<typeof CaSchema> {
  const { authority, rotation, view } = parts;
  const { root } = authority;
  const { progress } = rotation;
  const retired = authority.records.filter(({ retiredMs }) => retiredMs > 0n);
  return {
    clusterId: cluster.id,
    version: versionOf(cluster),
    rootPem: root.pem,
    rootFingerprint: root.fingerprint,
    rootExpiresMs: BigInt(root.notAfterMs),
    certificateLifetimeMs: authority.isExternal ? 0n : BigInt(certificateLifetimeMs(cluster)),
    external: parts.externalCas().map(({ lastSignedMs, lastFailedMs, ...rest }) => ({
      ...rest,
      lastSignedMs: BigInt(lastSignedMs),
      lastFailedMs: BigInt(lastFailedMs),
    })),
    ...(progress === undefined
      ? {}
      : {
          rotation: {
            startedMs: BigInt(progress.startedMs),
            deadlineMs: BigInt(progress.deadlineMs),
            formerRootFingerprint: progress.former.fingerprint,
            nodes: progress.nodes,
            renewed: progress.nodes - progress.left.length,
            left: nodesOf(progress.left, parts),
            endingTokens: progress.endingTokens,
          },
        }),
    intermediates: authority.chain.slice(0, -1).map(({ x509, notAfterMs }) => ({
      subject: x509.subject?.replaceAll('\n', ', ') ?? '',
      expiresMs: BigInt(notAfterMs),
    })),
    formerRoots: retired
      .map(({ chainPem, retiredMs }) => ({ fingerprint: fingerprintOfRoot(chainPem), retiredMs }))
      .reverse(),
    mustEnrol: nodesOf(
      [...view.nodes.values()].filter((node) => rotation.mustEnrol(node)),
      parts,
    ),
    operatorsToRenew: [...view.operators.values()]
      .filter(
        ({ issuedCa, revokedMs }) =>
          revokedMs === 0n && issuedCa.length > 0 && !authority.isPresent(issuedCa),
      )
      .map(({ name }) => name)
      .sort(),
  };
}

function nodesOf(
  nodes: readonly NodeRecord[],
  { dispatcher }: CaHandlersParts,
): MessageInitShape<typeof CaNodeSchema>[] {
  return nodes.slice(0, managerLimits.maxShownNodes).map((node) => ({
    id: node.id,
    hostname: node.description?.hostname ?? '',
    status: dispatcher.statusOf(node.id),
    certificateExpiresMs: node.certificateExpiresMs,
  }));
}

function fingerprintOfRoot(pem: string): string {
  return (readChain(pem).at(-1) ?? readCertificate(pem)).fingerprint;
}

function checkLifetime(ms: number): void {
  const { minChosenLifetimeMs: min, maxChosenLifetimeMs: max } = limits;
  if (ms >= min && ms <= max) return;
  const what = ms < min ? `shorter than ${durationText(min)}` : `longer than ${durationText(max)}`;
  throw new InroError('bad_input', `a certificate expiry of ${durationText(ms)} is ${what}`, {
    remedy: `choose between ${durationText(min)} and ${durationText(max)}: --cert-expiry 90d`,
  });
}
