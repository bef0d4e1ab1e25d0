/** Where a command's settings come from: the file that --config names, or the usual one where there is one. */
export interface SettingsFile<T> {
  /** For messages; undefined for a user who has no folder for such a file. */
  path: string | undefined;
  /** @throws bad_config. */
  read: () => T;
}

export function settingsFile<T extends object>(
  named: string | undefined,
  usual: string | undefined,
  read: (path: string, optional: boolean) => T,
): SettingsFile<T> {
  const path = named ?? usual;
  return {
    path,
    read: () => (path === undefined ? ({} as T) : read(path, named === undefined)),
  };
}

/** Keys that these options decide, whatever the file says. */
export function given<T extends object>(options: T): ReadonlySet<keyof T> {
  const keys = Object.keys(options) as (keyof T)[];
  return new Set(keys.filter((key) => options[key] !== undefined));
}
