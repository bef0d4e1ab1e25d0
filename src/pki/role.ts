/** What a certificate is for: a node, a manager, or a person. It stands in it (OU), so it is proved, not claimed. */
export const roles = ['worker', 'manager', 'operator'] as const;
/** Of a manager that waits for its unlock key: it can say that, and nothing else. Its key lies in clear. */
export const lockedRole = 'locked';
export type Role = (typeof roles)[number] | typeof lockedRole;

export function isRole(text: string): text is Role {
  return text === lockedRole || (roles as readonly string[]).includes(text);
}

/** The DNS name that all certificates of a role share: a TLS client asks for `inro-manager`, wherever it dialled. */
export function dnsNameOf(role: Role): string {
  return `inro-${role}`;
}
