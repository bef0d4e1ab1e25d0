/** What an operator may be, and what a deployer may use: globs over the names of secrets. */
import { InroError } from './error.js';
import { limits } from './limits.js';
import { quoted } from './name.js';

export const operatorRoles = ['admin', 'deployer', 'auditor'] as const;
export type OperatorRole = (typeof operatorRoles)[number];

/** @throws bad_input */
export function checkOperatorRole(text: string): OperatorRole {
  const role = operatorRoles.find((one) => one === text);
  if (role !== undefined) return role;
  throw new InroError('bad_input', `there is no operator's role ${quoted(text)}`, {
    remedy:
      'write --role admin (everything), deployer (services with granted secrets) or auditor (only looks)',
  });
}

/** @returns each once. @throws bad_input for too many, for one that no name fits, and for a role that has none. */
export function checkGrants(role: OperatorRole, grants: readonly string[]): string[] {
  const all = [...new Set(grants)];
  if (role !== 'deployer' && all.length > 0) {
    throw new InroError('bad_input', `an ${role} has no grants`, {
      remedy: 'grants are for --role deployer',
    });
  }
  if (all.length > limits.maxGrants)
    throw new InroError('bad_input', `${all.length} grants are more than ${limits.maxGrants}`);
  const wrong = all.find(
    (grant) => grant.length > limits.maxNameChars || !/^[a-zA-Z0-9\-_.*?]+$/.test(grant),
  );
  if (wrong === undefined) return all;
  throw new InroError('bad_input', `the grant ${quoted(wrong)} fits no name of a secret`, {
    remedy: "write a name, or one with * for any characters and ? for one: 'web_*'",
  });
}

export function isGranted(grants: readonly string[], secretName: string): boolean {
  return grants.some((grant) => fitsGlob(grant, secretName));
}

/** `*` is any characters, `?` one. Upper and lower case differ. In steps of at most both lengths multiplied. */
function fitsGlob(glob: string, text: string): boolean {
  let at = 0;
  let next = 0;
  let star = -1;
  let taken = 0;
  while (next < text.length) {
    if (glob[at] === '*') {
      star = at++;
      taken = next;
    } else if (at < glob.length && (glob[at] === '?' || glob[at] === text[next])) {
      at++;
      next++;
    } else if (star >= 0) {
      at = star + 1;
      next = ++taken;
    } else return false;
  }
  while (glob[at] === '*') at++;
  return at === glob.length;
}
