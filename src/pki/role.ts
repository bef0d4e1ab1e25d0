/** What a certificate is for: a node, a manager, or a person. It stands in it (OU), so it is proved, not claimed. */
export const roles = ['worker', 'manager', 'operator'] as const;
export type Role = (typeof roles)[number];

export function isRole(text: string): text is Role {
  return (roles as readonly string[]).includes(text);
}

/** The DNS name that all certificates of a role share: a TLS client asks for `inro-manager`, wherever it dialled. */
export function dnsNameOf(role: Role): string {
  return `inro-${role}`;
}
