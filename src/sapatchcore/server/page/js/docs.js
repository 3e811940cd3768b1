// The API's description, drawn by Swagger UI from files beside this one.
window.addEventListener("DOMContentLoaded", () => {
  window.SwaggerUIBundle({ url: "openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null });
});
