/** Names of secrets and services, and labels: the rules Swarm's users know. */
import { InroError } from './error.js';
import { limits } from './limits.js';

// swarmkit controlapi/common.go: letters and digits at both ends, `-_.` inside.
const namePattern = /^[a-zA-Z0-9]([a-zA-Z0-9\-_.]*[a-zA-Z0-9])?$/;

/** @throws bad_input when the name is not 1-64 characters of `[a-zA-Z0-9]` with `-_.` inside. */
export function checkName(kind: string, name: string): string {
  if (name.length > limits.maxNameChars || !namePattern.test(name)) {
    throw new InroError('bad_input', `${kind} name ${quoted(name)} is not valid`, {
      remedy: `use 1 to ${limits.maxNameChars} characters: letters and digits at both ends, - _ . allowed inside`,
    });
  }
  return name;
}

export type Labels = Record<string, string>;

/** @throws bad_input on too many labels, or on a key or value that is too long or has control characters. */
export function checkLabels(labels: Labels): Labels {
  const entries = Object.entries(labels);
  if (entries.length > limits.maxLabels) {
    throw new InroError('bad_input', `${entries.length} labels are more than ${limits.maxLabels}`);
  }
  for (const [key, value] of entries) {
    if (key.length === 0 || key.length > limits.maxLabelKeyChars || hasControl(key) || key.includes('=')) {
      throw new InroError('bad_input', `label key ${quoted(key)} is not valid`, {
        remedy: `use 1 to ${limits.maxLabelKeyChars} printable characters without '='`,
      });
    }
    if (value.length > limits.maxLabelValueChars || hasControl(value)) {
      throw new InroError('bad_input', `the value of label ${quoted(key)} is not valid`, {
        remedy: `use at most ${limits.maxLabelValueChars} printable characters`,
      });
    }
  }
  return labels;
}

/** True when the text has a C0 control character, DEL, or a C1 control character: they corrupt terminals and logs. */
export function hasControl(text: string): boolean {
  // eslint-disable-next-line no-control-regex
  return /[\u0000-\u001f\u007f-\u009f]/.test(text);
}

/** A text that somebody else chose, fit to be kept and shown: without control characters, cut to a length. */
export function printable(text: string, maxChars: number): string {
  // eslint-disable-next-line no-control-regex
  return text.slice(0, maxChars).replace(/[\u0000-\u001f\u007f-\u009f]/g, '?');
}

/** The text as JSON writes it, cut to a length that fits a message; safe to print whatever it holds. */
export function quoted(text: string): string {
  const json = JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}...` : text);
  // JSON leaves DEL and the C1 controls as they are, and some terminals obey them.
  return json.replace(/[\u007f-\u009f]/g, (char) => `\\u00${char.charCodeAt(0).toString(16)}`);
}
