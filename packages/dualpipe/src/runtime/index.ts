// The public face of the executor: ranks that run a schedule's operations over a user's stages.

export {};
