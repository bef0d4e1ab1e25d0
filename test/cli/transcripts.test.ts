/**
 * Runs each transcript of this folder on a host of its own, with a manager and an agent on it.
 * INRO_UPDATE_TRANSCRIPTS=1 writes what does not fit any more into the file: read the difference before you keep it.
 */
import { readdirSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { Host, scenario } from '../support/host.js';
import {
  fits,
  formatTranscript,
  likeExpected,
  parseTranscript,
  printedLines,
  withWildcards,
} from '../support/transcript.js';

// The compiled test stands in dist/test/cli, the transcripts in test/cli.
const folder = fileURLToPath(new URL('../../../test/cli/', import.meta.url));
const update = process.env['INRO_UPDATE_TRANSCRIPTS'] === '1';

for (const name of readdirSync(folder).filter((file) => file.endsWith('.txt'))) {
  scenario(name, async (t) => {
    const path = `${folder}${name}`;
    const transcript = parseTranscript(await readFile(path, 'utf8'));
    const host = await Host.of(t, { hostname: 'host-a', ownNetwork: true });
    await host.startCluster({ listen: '127.0.0.1:4747' });
    for (const step of transcript.steps) {
      // The end of a command that does not end by itself shows as [exit 124].
      const { stdout, code } = await host.run(['timeout', '20', 'sh', '-c', `exec 2>&1\n${step.command}`]);
      const printed = printedLines(stdout.replaceAll(host.folder, '~'), code);
      const fit = fits(step.expected, printed);
      if (fit || update) t.pass();
      else t.deepEqual(likeExpected(step.expected, printed), step.expected, `$ ${step.command}`);
      if (!fit) step.expected = printed.map(withWildcards);
    }
    if (update) await writeFile(path, formatTranscript(transcript));
  });
}
