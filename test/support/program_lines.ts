/** Lines of shell that read the file `$f`, by programs as they are installed; what they write goes to `$out`. */

/** `$b` is nothing, then busybox. */
const ofBusyboxToo = [
  '$b cat $f',
  '$b head -c 5 $f',
  '$b tail -c 5 $f',
  '$b tail -n 1 $f',
  '$b wc $f',
  '$b dd if=$f bs=1000 2>/dev/null',
  '$b dd if=$f bs=1 skip=3 count=3 2>/dev/null',
  '$b sha256sum $f',
  '$b sha256sum < $f',
  '$b grep -n 2 $f',
  '$b sort $f',
  '$b od -c $f',
  '$b awk 1 $f',
  '$b sed -n 1p $f',
  '$b stat -c "%s %a %u %g %F" $f',
  '$b cp $f $out && cat $out',
  '$b cp -a $f $out && stat -c "%s %a %u %g" $out',
  '$b tar cf - $f | $b tar xOf -',
  '$b gzip -c $f | $b zcat',
  '$b cmp $f $ordinary/$f && $b diff $f $ordinary/$f',
];

export const programLines: readonly string[] = [
  ...ofBusyboxToo.map((line) => line.replaceAll('$b ', '')),
  ...ofBusyboxToo.map((line) => line.replaceAll('$b', 'busybox')),
  'cp --reflink=auto $f $out && cat $out',
  'cp --sparse=always $f $out && cat $out',
  'install -m 600 $f $out && cat $out',
  'rsync -a $f $out && cat $out',
  'rsync --checksum --inplace --no-whole-file $f $out && cat $out',
  'tar c --sparse $f | tar xO',
  "split -b 1000 --filter='cat' $f",
  'bash -c \'echo "$(<$f)"\'',
  "bash -c 'read -r line < $f; echo $line'",
  "bash -c 'mapfile -t all < $f; echo ${#all[@]} ${all[-1]}'",
  "perl -e 'local $/; open F, $ENV{f}; print <F>'",
  "perl -MFile::Copy -e 'copy($ENV{f}, $ENV{out}) or die' && cat $out",
  "python3 -c 'import sys; print(open(sys.argv[1]).read())' $f",
  "python3 -c 'import os, sys; d = os.open(sys.argv[1], os.O_RDONLY); print(os.pread(d, 3, 2), os.fstat(d).st_size)' $f",
  // sendfile(2), and read(2) when that is refused.
  "python3 -c 'import shutil, sys; shutil.copyfile(*sys.argv[1:])' $f $out && cat $out",
  `node -p 'fs.readFileSync(process.env.f, "utf8")'`,
  `node -e 'fs.promises.readFile(process.env.f, "utf8").then(console.log)'`,
  "node -e 'fs.createReadStream(process.env.f).pipe(process.stdout)'",
  "node -e 'fs.copyFileSync(process.env.f, process.env.out)' && cat $out",
  'openssl dgst -sha256 < $f',
  'curl -sS file://$PWD/$f',
];

/**
 * Those that map the file and do not fall back to read(2): SIGBUS, unless its reference says `mmap`. git reads files of
 * less than 32 KiB unless it compares them.
 */
export const mappingLines: readonly string[] = [
  'git hash-object --no-filters $f',
  'git diff --no-index --stat $f $f',
  'python3 -c \'import mmap, sys; f = open(sys.argv[1], "rb"); print(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)[:9])\' $f',
];
