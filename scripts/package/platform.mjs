/** What Debian and its linker call the platform that this Node runs on. */

const architectures = { x64: 'amd64' };

/** @returns {architecture}. @throws where no package can be made. */
export function platform() {
  const architecture = process.platform === 'linux' ? architectures[process.arch] : undefined;
  if (architecture === undefined)
    throw new Error(
      `packages are made for Linux on x86-64, and this Node is for ${process.platform}-${process.arch}`,
    );
  return { architecture };
}
