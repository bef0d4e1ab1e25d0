/** Keys and certificates as openssl(1) makes them, for servers that are given them as secrets. */
import type { Host } from './host.js';

export interface TlsPair {
  key: string;
  certificate: string;
}

/** A P-256 key and a certificate that it signed itself, for 127.0.0.1. @param name its common name. */
export async function tlsPair(host: Host, name: string): Promise<TlsPair> {
  const options = `-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj '/CN=${name}'`;
  const made = await host.sh(
    `cd tmp && openssl req -x509 ${options} -addext subjectAltName=IP:127.0.0.1 -keyout key -out certificate 2>&1 &&
     cat key && rm key && cat certificate`,
  );
  const found = /^(-+BEGIN PRIVATE[^]*-+END PRIVATE KEY-+\n)(-+BEGIN CERT[^]*)$/m.exec(made.stdout);
  if (made.code !== 0 || found === null) throw new Error(made.stdout);
  const [, key = '', certificate = ''] = found;
  return { key, certificate };
}

/** The common name in the certificate that a server on this port shows. @param startTls a protocol of s_client(1). */
export async function servedName(host: Host, port: number, startTls?: string): Promise<string> {
  const protocol = startTls === undefined ? '' : `-starttls ${startTls}`;
  const { stdout } = await host.sh(
    `openssl s_client -connect 127.0.0.1:${port} ${protocol} < /dev/null 2>/dev/null | openssl x509 -noout -subject -nameopt multiline`,
  );
  return /commonName *= (.*)/.exec(stdout)?.[1] ?? '';
}
