import sys

from fedbatch.setup.allocator import keep_freed_memory


def test_large_blocks_come_from_the_heap_and_stay():
    assert keep_freed_memory() == sys.platform.startswith("linux")
