/**
 * Command-line transcripts: text files that read as documentation and run as tests.
 *
 *   # a remark
 *   $ a line of shell            (goes on in the next line after a \ at its end)
 *   what it prints, standard output and standard error as a terminal shows them
 *   [exit 1]                     (when the exit code is not 0)
 *
 * In what is printed, `...` as a line of its own stands for any lines, and within a line:
 *   [id] an id   [time] an ISO 8601 time   [token] a join token   [hash] a SHA-256 in hex   [..] anything
 * Relative times are all alike, and runs of spaces are: so tables stay aligned for readers.
 */
export interface Step {
  /** Remarks and empty lines before it, as they stand. */
  before: string[];
  /** As it stands, without `$ `. */
  command: string;
  /** Lines, with `[exit N]` as the last one if it is not 0. */
  expected: string[];
}

export interface Transcript {
  steps: Step[];
  /** What stands behind the last step. */
  after: string[];
}

export function parseTranscript(text: string): Transcript {
  const steps: Step[] = [];
  let before: string[] = [];
  let step: Step | undefined;
  const lines = text.replace(/\n$/, '').split('\n');
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at] as string;
    if (line.startsWith('$ ')) {
      let command = line.slice(2);
      while (command.endsWith('\\')) command += `\n${lines[++at] ?? ''}`;
      step = { before, command, expected: [] };
      before = [];
      steps.push(step);
    } else if (step === undefined || line.startsWith('# ') || line === '#') {
      // What is printed ends where the next remark begins; the empty lines before that belong to the remark.
      while (step?.expected.at(-1) === '') before.push(step.expected.pop() as string);
      step = undefined;
      before.push(line);
    } else {
      step.expected.push(line);
    }
  }
  for (const { expected } of steps) {
    // Between two steps an empty line is for the reader.
    while (expected.at(-1) === '') expected.pop();
  }
  return { steps, after: before };
}

/** The transcript's text, with an empty line between steps. */
export function formatTranscript({ steps, after }: Transcript): string {
  const blocks = steps.map(({ before, command, expected }) =>
    [...before.filter((line, at) => line !== '' || at > 0), `$ ${command}`, ...expected].join('\n'),
  );
  return `${[...blocks, ...(after.length > 0 ? [after.join('\n').trim()] : [])].join('\n\n')}\n`;
}

/** What was printed, as lines of a transcript. */
export function printedLines(output: string, code: number): string[] {
  const lines = output === '' ? [] : output.replace(/\n$/, '').split('\n');
  return code === 0 ? lines : [...lines, `[exit ${code}]`];
}

/** True when what was printed is what the lines allow. */
export function fits(expected: readonly string[], printed: readonly string[]): boolean {
  const [first, ...rest] = expected;
  if (first === undefined) return printed.length === 0;
  if (first.trim() === '...') {
    return Array.from({ length: printed.length + 1 }, (_, skip) => skip).some((skip) =>
      fits(rest, printed.slice(skip)),
    );
  }
  return printed.length > 0 && lineFits(first, printed[0] as string) && fits(rest, printed.slice(1));
}

/** What was printed, with each line that fits an expected one written as that: a difference then shows only what differs. */
export function likeExpected(expected: readonly string[], printed: readonly string[]): string[] {
  return printed.map((line) => expected.find((one) => lineFits(one, line)) ?? withWildcards(line));
}

/** A printed line with wildcards for what differs each time. */
export function withWildcards(line: string): string {
  return line
    .replace(
      /("(?:pid|leaseLeftMs|usedBytes|freeBytes|largestBytes|memoryBytes|cpus|durationUs)": |process |values, |wiped in )[0-9]+/,
      '$1[..]',
    )
    .replace(/INRO-JOIN-1-[0-9a-z]{50}-[0-9a-z]{25}/g, '[token]')
    .replace(/\b[0-9a-f]{64}\b/g, '[hash]')
    .replace(/\b[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z\b/g, '[time]')
    .replace(/\b(?=[0-9a-z]*[0-9])[0-9a-z]{25}\b( {3})?/g, (_, gap?: string) =>
      gap === undefined ? '[id]' : '[id]'.padEnd(28),
    );
}

const wildcards: Record<string, string> = {
  '[id]': '[0-9a-z]{25}',
  '[time]': '[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z',
  '[token]': 'INRO-JOIN-1-[0-9a-z]{50}-[0-9a-z]{25}',
  '[hash]': '[0-9a-f]{64}',
  '[..]': '.*',
};

function lineFits(expected: string, printed: string): boolean {
  const pieces = even(expected).split(/(\[(?:id|time|token|hash|\.\.)\])/);
  const pattern = pieces
    .map((piece) => wildcards[piece] ?? piece.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&'))
    .join('');
  return new RegExp(`^${pattern}$`).test(even(printed));
}

function even(line: string): string {
  return line
    .replace(/(a few seconds|a minute|[0-9]+ minutes) ago/g, 'a few seconds ago')
    .replace(/ {2,}/g, '  ')
    .trimEnd();
}
