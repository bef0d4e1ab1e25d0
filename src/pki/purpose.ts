/** What a certificate may be used for (RFC 5280 4.2.1.12). */
import type { Role } from './role.js';

export const purposes = { serverAuth: '1.3.6.1.5.5.7.3.1', clientAuth: '1.3.6.1.5.5.7.3.2' } as const;
export type Purpose = keyof typeof purposes;

/** Everybody dials managers, nobody dials workers or operators. */
export function purposesOf(role: Role): Purpose[] {
  if (role === 'locked') return ['serverAuth'];
  return role === 'manager' ? ['serverAuth', 'clientAuth'] : ['clientAuth'];
}
