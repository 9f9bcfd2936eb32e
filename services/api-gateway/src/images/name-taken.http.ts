import type { Views } from '../views.store.ts';
import { ProblemError } from '../problem.http.ts';

/** What would only come out when all the bytes are there is said at once. Throws a ProblemError. */
export const nameTaken = async (views: Pick<Views, 'imageCalled'>, name: string, imageId: string): Promise<void> => {
  const taken = await views.imageCalled(name);
  if (taken !== undefined && taken !== imageId) throw new ProblemError('image.name_taken', { because: { name, heldBy: taken } });
};
