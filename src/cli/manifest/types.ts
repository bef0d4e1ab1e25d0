/** The types of Secret that Kubernetes knows, and the keys without which it takes none of them (docs: Secret, "Types of Secret"). */
interface Rule {
  all?: readonly string[];
  /** One of them at least. */
  any?: readonly string[];
  refused?: string;
}

const rules = new Map<string, Rule>([
  ['Opaque', {}],
  [
    'kubernetes.io/service-account-token',
    { refused: 'the token of a service account is made by Kubernetes, and is good there alone' },
  ],
  ['kubernetes.io/dockercfg', { all: ['.dockercfg'] }],
  ['kubernetes.io/dockerconfigjson', { all: ['.dockerconfigjson'] }],
  ['kubernetes.io/basic-auth', { any: ['username', 'password'] }],
  ['kubernetes.io/ssh-auth', { all: ['ssh-privatekey'] }],
  ['kubernetes.io/tls', { all: ['tls.crt', 'tls.key'] }],
  ['bootstrap.kubernetes.io/token', { all: ['token-id', 'token-secret'] }],
]);

/** Why a Secret of this type cannot be so; undefined when it can. Types of others have no rules. */
export function refusalOfType(type: string, keys: ReadonlySet<string>): string | undefined {
  const { all = [], any = [], refused } = rules.get(type) ?? {};
  if (refused !== undefined) return refused;
  const missing = all.filter((key) => !keys.has(key));
  if (missing.length > 0) return `${type} needs ${missing.join(' and ')}`;
  return any.length > 0 && !any.some((key) => keys.has(key))
    ? `${type} needs ${any.join(' or ')}`
    : undefined;
}
