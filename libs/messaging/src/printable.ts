/** Reduced to printable ASCII and cut, so that it fits a header: a line break in a header's value throws, and sentences of others have them. */
export const printable = (text: string, charactersMax = 500): string => text.replace(/[^\x20-\x7e]+/g, ' ').slice(0, charactersMax);
