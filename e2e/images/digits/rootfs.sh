#!/bin/sh
# Turns unpacked Debian packages into the root file system of the digits image. mmdebstrap calls it with the folder, which
# holds python3-sklearn and all it depends on, none of it configured.
set -eu
root=${1:?the folder of the root file system}
# The lines below delete: not in the wrong folder.
if [ "$(cd "$root" && pwd -P)" = / ] || [ ! -d "$root/usr/lib/python3" ]; then
    echo "$root does not hold unpacked packages" >&2
    exit 1
fi
cd "$root"

# scipy depends on a compiler (for pythran), which is two thirds of everything and never used to run a program.
rm -rf usr/include usr/lib/gcc usr/lib/*/perl* usr/share/perl* usr/lib/*/openblas* usr/lib/*/*.a usr/lib/*/*san.so* \
    usr/lib/python3*/config-* usr/lib/python3/dist-packages/pythran usr/lib/bfd-plugins usr/lib/*/libisl* usr/lib/*/libperl*
find usr/bin -type f ! -name 'python3*' -delete
# Documents and translations.
rm -rf usr/share/doc usr/share/man usr/share/info usr/share/locale usr/share/lintian usr/share/gdb usr/share/boost* \
    usr/share/python-wheels usr/share/bash-completion
find usr/lib/python3 usr/lib/python3.* -type d \( -name tests -o -name test -o -name idlelib -o -name lib2to3 \) -prune -exec rm -rf {} +

# What the packages' own scripts would have done: choose BLAS and LAPACK, name a shell, name root.
for library in usr/lib/*/blas/libblas.so.3 usr/lib/*/lapack/liblapack.so.3; do
    ln -sf "$(basename "$(dirname "$library")")/${library##*/}" "$(dirname "$(dirname "$library")")/${library##*/}"
done
mkdir -p bin tmp proc sys dev etc root
[ -e bin/sh ] || ln -s busybox bin/sh
chmod 1777 tmp
echo 'root:x:0:0:root:/root:/bin/sh' >etc/passwd
echo 'nonroot:x:65532:65532:nonroot:/tmp:/bin/sh' >>etc/passwd
printf 'root:x:0:\nnonroot:x:65532:\n' >etc/group

# Importing what the programs import leaves compiled modules behind, so that a pod does not compile them at every start;
# and an image that cannot work fails here. Threads and processes would want /dev/shm, hence one thread.
env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 chroot "$root" /usr/bin/python3 -c '
import argparse, hashlib, json, pickle, urllib.parse, numpy
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC
data = load_digits()
assert SVC().fit(data.data[:500], data.target[:500]).score(data.data, data.target) > 0.8
'
