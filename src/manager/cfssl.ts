/**
 * One call of cfssl: POST /api/v1/cfssl/sign. It signs with the names of the request, not with those of the CSR, and with the
 * usages, the lifetime and the backdating of the profile; where there is no such profile, with its default one.
 */
import { readFileSync } from 'node:fs';
import { Agent, request as httpsRequest } from 'node:https';
import { z } from 'zod';
import { InroError } from '../model/error.js';
import type { ExternalCaSpec } from '../model/external_ca.js';
import { printable } from '../model/name.js';
import type { SigningRequest } from '../pki/external.js';
import { managerLimits } from './limits.js';

const answerShape = z.object({
  success: z.boolean(),
  result: z.object({ certificate: z.string() }).nullish(),
  errors: z.array(z.object({ code: z.number().optional(), message: z.string() })).nullish(),
});

export interface Cfssl {
  readonly url: string;
  /** @returns PEM. @throws unreachable, protocol; the message does not name the URL. */
  sign(request: SigningRequest): Promise<string>;
  close(): void;
}

/** @param rootsPem by which its own certificate is verified, if the spec names no others. @throws bad_input for files that cannot be read. */
export function cfssl({ url, tlscacert, cert, key }: ExternalCaSpec, rootsPem: string): Cfssl {
  const agent = new Agent({
    keepAlive: true,
    maxSockets: managerLimits.maxExternalCaCalls,
    minVersion: 'TLSv1.2',
    ca: tlscacert === undefined ? rootsPem : readGiven(tlscacert),
    ...(cert === undefined ? {} : { cert: readGiven(cert) }),
    ...(key === undefined ? {} : { key: readGiven(key) }),
  });
  return {
    url,
    sign: async ({ csrPem, role, subject: { O, OU, CN }, dnsNames }) => {
      const text = await post(url, agent, {
        certificate_request: csrPem,
        hosts: dnsNames,
        subject: { CN, names: [{ O, OU }] },
        profile: profileOf(role),
      });
      return certificateIn(text);
    },
    close: () => agent.destroy(),
  };
}

export function profileOf(role: string): string {
  return `inro-${role}`;
}

/** @throws unreachable, protocol. */
function post(url: string, agent: Agent, body: unknown): Promise<string> {
  return new Promise<string>((resolve, reject) => {
    const headers = { 'content-type': 'application/json' };
    const sent = httpsRequest(url, { method: 'POST', agent, headers });
    let isAnswered = false;
    const fail = (error: Error): void => {
      // Its connection is somebody else's by then.
      if (isAnswered) return;
      reject(error instanceof InroError ? error : silent(error));
      sent.destroy();
    };
    // Others may be before it: its time begins when it has a connection.
    sent.once('socket', () => {
      const late = AbortSignal.timeout(managerLimits.externalCaMs);
      late.addEventListener('abort', () => fail(tooSlow()), { once: true });
    });
    sent.on('error', fail);
    sent.once('response', (response) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        if (bytes <= managerLimits.maxExternalCaAnswerBytes) chunks.push(chunk);
        else fail(broken(`answers with more than ${managerLimits.maxExternalCaAnswerBytes} bytes`));
      });
      response.on('error', fail);
      response.once('end', () => {
        const text = Buffer.concat(chunks).toString('utf8');
        const status = response.statusCode ?? 0;
        // cfssl says what is wrong with a request in an answer of status 400 that is like its others.
        isAnswered = status === 200 || text.trimStart().startsWith('{');
        if (isAnswered) resolve(text);
        else fail(broken(`answers HTTP ${status}`));
      });
    });
    sent.end(JSON.stringify(body));
  });
}

function certificateIn(text: string): string {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw broken('answers with what is not JSON');
  }
  const { success, data } = answerShape.safeParse(value);
  if (!success) throw broken('answers with what is not an answer of cfssl');
  if (data.success && data.result !== null && data.result !== undefined) return data.result.certificate;
  const said = (data.errors ?? []).map(({ message }) => printable(message, 200)).join('; ');
  throw broken(`refuses: ${said === '' ? 'it does not say why' : said}`);
}

const hints: Record<string, string> = {
  DEPTH_ZERO_SELF_SIGNED_CERT: 'tlscacert=FILE names who signed it',
  SELF_SIGNED_CERT_IN_CHAIN: 'tlscacert=FILE names who signed it',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'tlscacert=FILE names who signed it',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'tlscacert=FILE names who signed it',
  ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED: 'cert=FILE,key=FILE is what this manager shows',
  ERR_SSL_SSLV3_ALERT_BAD_CERTIFICATE: 'cert=FILE,key=FILE is what this manager shows',
};

function silent(error: NodeJS.ErrnoException): InroError {
  const hint = hints[error.code ?? ''];
  const why = printable(error.message, 200) + (hint === undefined ? '' : ` (${hint})`);
  return new InroError('unreachable', why, { cause: error });
}

function tooSlow(): InroError {
  return new InroError('unreachable', `no answer within ${managerLimits.externalCaMs / 1000} s`);
}

function broken(what: string): InroError {
  return new InroError('protocol', what);
}

function readGiven(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new InroError('bad_input', `the file ${path} cannot be read: ${(cause as Error).message}`, {
      remedy: 'give a PEM file that is there: --external-ca ...,tlscacert=FILE,cert=FILE,key=FILE',
      cause,
    });
  }
}
