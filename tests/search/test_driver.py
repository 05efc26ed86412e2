"""What a search does beside its legs."""

import subprocess
import sys


def test_a_search_that_ends_while_torch_is_imported_ends_with_its_own_code():
    """As one without a cluster at its --address does: Python aborted (134) where a daemon thread was importing."""
    ends = "import search.ray_cluster, search.driver; search.driver.warm_up(); raise SystemExit(3)"
    done = subprocess.run([sys.executable, "-c", ends], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, "")
