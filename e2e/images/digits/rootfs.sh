#!/bin/sh
# Turns unpacked Debian packages into the root file system of the digits image. mmdebstrap calls it with the folder, which
# holds Python and all it depends on, none of it configured. What the programs import comes from PyPI, named in the file
# $REQUIREMENTS: Debian's scikit-learn is older than MLflow's autologging supports.
set -eu
root=${1:?the folder of the root file system}
requirements=${REQUIREMENTS:?the file that names the Python packages}
# The lines below delete: not in the wrong folder.
if [ "$(cd "$root" && pwd -P)" = / ] || [ ! -d "$root/usr/lib/python3" ]; then
    echo "$root does not hold unpacked packages" >&2
    exit 1
fi
cd "$root"

# Documents and translations, and what nothing here is run with.
rm -rf usr/share/doc usr/share/man usr/share/info usr/share/locale usr/share/lintian usr/share/gdb usr/share/python-wheels \
    usr/share/bash-completion usr/share/perl* usr/lib/*/perl* usr/lib/python3*/config-* usr/lib/*/gconv usr/share/zoneinfo
# Lists and packages that were downloaded for this; apt's own folders stay, it cleans them up itself.
rm -rf var/lib/apt/lists/*_* var/cache/apt/*.bin var/cache/apt/archives/*.deb
find usr/bin -type f ! -name 'python3*' -delete

# The image's own Python and C library decide which wheels fit, not those of the machine that builds it.
version=$(basename "$(echo usr/lib/python3.[0-9]*)" | tr -d a-z)
packages=usr/local/lib/python$version/dist-packages
machine=$(uname -m)
pip3 --disable-pip-version-check --no-input install --quiet --no-compile --only-binary=:all: --python-version "$version" \
    --implementation cp --platform "manylinux_2_28_$machine" --platform "manylinux_2_27_$machine" \
    --platform "manylinux_2_17_$machine" --platform "manylinux2014_$machine" \
    --target "$packages" --requirement "$requirements"
rm -rf "$packages/bin" "$packages"/numpy/_core/include
find usr/lib/python3 usr/lib/python3.* "$packages" -type d \( -name tests -o -name test -o -name idlelib -o -name lib2to3 \) \
    -prune -exec rm -rf {} +
find "$packages" -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.h' \) -delete

# What the packages' own scripts would have done: name a shell, name root.
mkdir -p bin tmp proc sys dev etc root
[ -e bin/sh ] || ln -s busybox bin/sh
chmod 1777 tmp
echo 'root:x:0:0:root:/root:/bin/sh' >etc/passwd
echo 'nonroot:x:65532:65532:nonroot:/tmp:/bin/sh' >>etc/passwd
printf 'root:x:0:\nnonroot:x:65532:\n' >etc/group

# Doing what the programs do leaves compiled modules behind, so that a pod does not compile them at every start; and an
# image that cannot work fails here. Threads and processes would want /dev/shm, hence one thread.
: >dev/null
env -u PYTHONDONTWRITEBYTECODE -u PYTHONPATH HOME=/tmp OMP_NUM_THREADS=1 MLFLOW_ALLOW_FILE_STORE=true \
    chroot "$root" /usr/bin/python3 -c '
import argparse, mlflow, numpy
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC
mlflow.set_tracking_uri("file:///tmp/mlruns")
mlflow.autolog()
data = load_digits()
model = SVC().fit(data.data[:500], data.target[:500])
assert model.score(data.data, data.target) > 0.8
run = mlflow.last_active_run()
assert "training_score" in run.data.metrics, run
logged = mlflow.search_logged_models(output_format="list")
assert mlflow.sklearn.load_model(logged[0].model_uri).predict(data.data[:1]).shape == (1,)
'
rm -rf tmp/* tmp/.[!.]* dev/null
