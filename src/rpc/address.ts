/** HOST:PORT as operators write it. */
import { InroError } from '../model/error.js';
import { quoted } from '../model/name.js';

/** @throws bad_input unless it is HOST:PORT, with brackets round an IPv6 address. */
export function checkAddress(address: string): string {
  const match = /^(\[[0-9a-fA-F:.%\w]+\]|[^\s:/[\]]+):([0-9]{1,5})$/.exec(address);
  if (match === null || Number(match[2]) > 65_535) {
    throw new InroError('bad_input', `address ${quoted(address)} is not HOST:PORT`, {
      remedy: 'write it as 10.0.0.1:4747 or [2001:db8::1]:4747',
    });
  }
  return address;
}
