"""transcription.cpu_fallback: speech is recognised on the CPU where the GPU was meant.

Whisper servers choose their device themselves by default, and choose the CPU in silence when a library is
missing. Told to use CUDA they fail loudly instead, which is easier to see and to mend.
"""

from __future__ import annotations

from escalation.model import Advice, Incident
from escalation.server.playbook.serving import change, has_second_witness, look

_PROOF = "The driver lists the server's processes on a GPU within an hour, and requests keep few cores busy."


def advise(incident: Incident) -> Advice:
    """Return: pin the device, so that the server fails where it cannot have it; look, with one sign only."""
    if not has_second_witness(incident):
        return look(
            incident,
            summary=(
                "Read what the server said when it loaded the model: a missing cuDNN library, or FP16 that "
                "is not supported on a CPU, are the usual words."
            ),
            will_not_fix="Anything: it shows why the GPU was not used.",
            proof=_PROOF,
        )
    return change(
        incident,
        summary=(
            "Tell the server to use the GPU instead of choosing itself (Speaches: "
            "WHISPER__INFERENCE_DEVICE=cuda; faster-whisper: device=cuda), and start it again. It then fails "
            "loudly and names the library that is missing."
        ),
        risk=(
            "With the device pinned, a server that cannot use the GPU does not start: transcription stands "
            "still until the library is there. The change needs a restart, which cuts requests off."
        ),
        will_not_fix=(
            "An image without CUDA or cuDNN (the arm64 wheels of CTranslate2 have neither): that needs "
            "another image."
        ),
        proof=_PROOF,
    )
