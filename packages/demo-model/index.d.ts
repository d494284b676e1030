export const demoModelDir: string;
