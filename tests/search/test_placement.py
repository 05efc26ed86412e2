"""How much memory a leg is given, and what is said of processes that were lost."""

import pytest

from search.lost_processes import LostProcesses
from search.placement import Node, Placement, memory_fraction

GIB = 2**30
NODE_LOST = "The actor died unexpectedly: The actor died because its node has died. Node Id: 5fa"
UNREACHABLE = "The actor a1 is unavailable: RPC error. The task may or may not have been executed on the actor."
KILLED = "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR; code 2. End of file"
MONITOR = "Task was killed due to the node running low on memory. Memory on the node was 15.2GB / 16.0GB"


def placement(*nodes, cpus=1.0, gpus=0.0):
    return Placement(cpus, gpus, lambda: nodes)


def test_a_leg_of_which_nothing_is_known_is_given_its_share_of_the_node():
    assert placement(Node(4, 0, 16 * GIB)).request(0, "resnet18") == {"CPU": 1, "GPU": 0, "memory": 4 * GIB}


def test_legs_that_run_at_once_never_ask_for_more_than_a_node_has():
    nodes = [Node(4, 0, 16 * GIB), Node(16, 0, 40 * GIB)]
    share = placement(*nodes).request(0, "resnet18")["memory"]
    assert all(node.cpus * share <= node.memory for node in nodes)


def test_a_family_that_took_more_than_its_share_is_given_several():
    place = placement(Node(4, 0, 16 * GIB))
    place.measured(0, "inception_v4", 5 * GIB)
    assert place.request(7, "inception_v4")["memory"] == 8 * GIB
    assert place.request(8, "small_cnn")["memory"] == 4 * GIB


def test_no_leg_asks_for_more_than_the_largest_node_has():
    place = placement(Node(4, 0, 16 * GIB), Node(2, 0, 8 * GIB))
    place.measured(0, "inception_v4", 500 * GIB)
    assert place.request(0, "inception_v4")["memory"] == 16 * GIB


def test_a_trial_whose_process_died_is_given_twice_as_much_each_time():
    place = placement(Node(8, 0, 16 * GIB))
    asked = []
    for _ in range(5):
        asked.append(place.request(3, "vgg")["memory"] / GIB)
        place.process_died(3, "vgg")
    assert asked == [2, 4, 8, 16, 16]
    assert place.request(4, "vgg")["memory"] == 2 * GIB


def test_where_gpus_are_what_limits_the_legs_they_make_the_shares():
    place = placement(Node(16, 2, 64 * GIB), cpus=2, gpus=0.5)
    assert place.request(0, "densenet121") == {"CPU": 2, "GPU": 0.5, "memory": 16 * GIB}


def test_nodes_on_which_no_leg_can_run_make_no_shares():
    """Such as the head, which trains nothing, while a cluster that grows on demand has no worker yet."""
    assert placement(Node(0, 0, 8 * GIB)).request(0, "resnet18") == {"CPU": 1, "GPU": 0}


def test_whole_gpus_are_not_capped():
    assert [memory_fraction(gpus, 80 * GIB) for gpus in (0, 1, 2)] == [None, None, None]


@pytest.mark.parametrize("sharing", [2, 3, 4, 8])
def test_processes_that_share_a_gpu_leave_room_for_each_others_contexts(sharing):
    total, context = 24 * GIB, 500 * 2**20
    allocated = memory_fraction(1 / sharing, total) * total
    assert sharing * (allocated + context) <= total
    assert allocated > 0.75 * total / sharing


def test_a_node_that_died_is_no_fault_of_the_trial():
    lost = LostProcesses()
    for message in (NODE_LOST, UNREACHABLE):
        assert lost.reason(0, message, 0) == ("its node was lost or cannot be reached", False)


def test_a_process_that_died_once_is_said_to_have_died_and_no_more():
    lost = LostProcesses()
    assert lost.reason(0, KILLED, 0) == ("its process died", True)


def test_a_trial_that_dies_again_while_others_live_is_said_to_lack_memory():
    lost = LostProcesses()
    lost.reason(0, KILLED, 0)
    lost.lived(1)
    reason, _ = lost.reason(0, KILLED, 3 * GIB)
    assert "memory is the likely cause (it held 3.0 GiB or more)" in reason


def test_where_all_die_memory_is_not_blamed():
    lost = LostProcesses()
    reasons = [lost.reason(trial, KILLED, 0)[0] for trial in (0, 1, 0, 1)]
    assert reasons == ["its process died"] * 4


def test_rays_memory_monitor_is_named_at_once():
    reason, died = LostProcesses().reason(0, MONITOR, 0)
    assert "the node ran out of memory" in reason
    assert died
