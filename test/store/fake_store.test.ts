/** The stores that tests use instead of a disk are held to what disks are held to. */
import test from 'ava';
import { setImmediate as turn } from 'node:timers/promises';
import { FakeDisk, fakeStore } from '../support/fake_store.js';
import { checks } from '../support/store_conformance.js';

const kinds = { 'at once': undefined, 'with delays': () => turn() };

for (const [kind, delay] of Object.entries(kinds)) {
  for (const [name, check] of Object.entries(checks)) {
    test(`${kind}: ${name}`, async (t) => {
      const options = { disk: new FakeDisk(), ...(delay === undefined ? {} : { delay }) };
      const store = fakeStore(options);
      await t.notThrowsAsync(check({ store, reopen: async () => fakeStore(options) }));
    });
  }
}
