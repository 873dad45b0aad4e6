// Passkeys: the one thing that a form cannot do. Without this script passwords work as before.
"use strict";
