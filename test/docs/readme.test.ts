/** README.md against the built program: its transcript runs as it stands, its commands, options, links and packages exist. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { Docker } from '../support/docker.js';
import { Host, scenario } from '../support/host.js';
import { inro } from '../support/inro.js';
import { labScenario } from '../support/lab.js';
import { fits, parseTranscript, printedLines, withWildcards } from '../support/transcript.js';

// The compiled test stands in dist/test/docs.
const root = fileURLToPath(new URL('../../../', import.meta.url));
const readme = readFileSync(join(root, 'README.md'), 'utf8');

function blocks(language: string): string[] {
  return [...readme.matchAll(new RegExp(`^\`\`\`${language}\n([^]*?)^\`\`\``, 'gm'))].map(
    ([, text]) => text as string,
  );
}

/** The cells of each row whose first cell is code. */
function rows(section: string): string[][] {
  const text = readme.split(/^## /m).find((part) => part.startsWith(`${section}\n`)) ?? '';
  const lines = text.split('\n').filter((line) => line.startsWith('| `'));
  return lines.map((line) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
}

/** Ids and the date in `ls -l` differ each time. */
function general(line: string): string {
  return withWildcards(line).replace(/[A-Z][a-z]{2} +[0-9]+ [0-9:]{5}/, '[..]');
}

/** Each command of a transcript prints what stands below it. */
async function follow(t: ExecutionContext, host: Host, block: string | undefined): Promise<void> {
  const transcript = block === undefined ? undefined : parseTranscript(block);
  t.true(transcript !== undefined && transcript.steps.length > 5);
  for (const { command, expected } of transcript?.steps ?? []) {
    const { stdout } = await host.run(['sh', '-c', `exec 2>&1\n${command}`], { cwd: root });
    // npm has its own words on the user's npm configuration.
    const printed = printedLines(stdout, 0).filter((line) => !line.startsWith('npm '));
    if (fits(expected.map(general), printed)) t.pass();
    else t.deepEqual(printed.map(general), expected.map(general), `$ ${command}`);
  }
}

scenario('the transcript works as it stands, in the second terminal of npm start', async (t) => {
  const host = await Host.of(t, { hostname: 'laptop' });
  await host.startDev();
  await follow(t, host, blocks('console')[0]);
});

labScenario(
  'that of containers, too',
  async (t) => {
    const host = await Host.of(t, { ownNetwork: true });
    const docker = await Docker.on(t, host);
    await docker.importAs('redis:alpine', ['sleep', '1000']);
    await host.startDev();
    t.is(blocks('console').length, 2);
    await follow(t, host, blocks('console')[1]);
  },
  { timeoutMs: 300_000 },
);

test('the table has every command, and each example uses options that there are', async (t) => {
  const named = new Map(
    rows('Commands').map(([command = '', example = '']) => [command.slice(1, -1), example.slice(1, -1)]),
  );
  const found: string[] = [];
  const pages = new Map<string, string>();
  const help = async (command: string): Promise<string> => {
    const page = pages.get(command) ?? (await inro([...command.split(' '), '--help'])).stdout;
    pages.set(command, page);
    return page;
  };
  const look = async (path: string[]): Promise<void> => {
    const stdout = path.length === 0 ? (await inro(['--help'])).stdout : await help(path.join(' '));
    const [, commands] = stdout.split('\nCommands:\n');
    if (commands === undefined) found.push(path.join(' '));
    else
      for (const [, name] of commands.matchAll(/^ {2}([a-z-]+)/gm))
        if (name !== 'help') await look([...path, name as string]);
  };
  await look([]);
  t.deepEqual([...named.keys()].sort(), found.sort());

  const shown = blocks('sh').flatMap((text) => text.match(/(?<!=)\binro [^<>|\n]+/gm) ?? []);
  for (const example of [...named.values(), ...shown]) {
    const command =
      found.find((name) => example === `inro ${name}` || example.startsWith(`inro ${name} `)) ?? '';
    t.not(command, '', example);
    const stdout = await help(command);
    for (const option of example.match(/ --[a-z-]+/g) ?? [])
      t.true(stdout.includes(`${option} `), `${example}:${option}`);
  }
});

test('every package that the program needs is named with its reason, and no other', (t) => {
  const { dependencies, optionalDependencies } = JSON.parse(
    readFileSync(join(root, 'package.json'), 'utf8'),
  ) as Record<string, object>;
  const named = rows('Dependencies').flatMap(([cell = '']) =>
    [...cell.matchAll(/`([^`]+)`/g)].map(([, name]) => name as string),
  );
  t.deepEqual(named.sort(), Object.keys({ ...dependencies, ...optionalDependencies }).sort());
});

test('every link leads to a file', (t) => {
  const pages = ['README.md', ...readdirSync(join(root, 'docs')).map((name) => `docs/${name}`)];
  for (const page of pages) {
    const text = readFileSync(join(root, page), 'utf8');
    for (const [, target = ''] of text.matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)) {
      t.true(existsSync(join(root, dirname(page), target)), `${page}: ${target}`);
    }
  }
});
