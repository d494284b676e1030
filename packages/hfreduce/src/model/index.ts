// The cost model, pure: memory operations and network time of an allreduce, without running one.

export {};
