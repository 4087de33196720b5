/** An error whose message is a sentence for the user: what is wrong, and how to mend it. */
export class Sentence extends Error {}
